/* CBOR 1.1 (RFC 8949): the body of PutRecords, and the lists of records in two answers. Twins: kinstream.aws.codec.CborCodec. */
#include "speed.h"

enum { BYTES = 0x40, TEXT = 0x60, ARRAY = 0x80, MAP = 0xa0 };

/* --- Writing --------------------------------------------------------------------------------------------------------- */

/* Writes the head of an item, in the shortest form; five bytes at most. */
static void put_head(struct writer *writer, unsigned major, Py_ssize_t size) {
    unsigned char *to = (unsigned char *)writer->at;
    if (size < 24) {
        *to++ = (unsigned char)(major | (unsigned)size);
    } else if (size < 0x100) {
        *to++ = (unsigned char)(major | 24);
        *to++ = (unsigned char)size;
    } else if (size < 0x10000) {
        *to++ = (unsigned char)(major | 25);
        *to++ = (unsigned char)(size >> 8);
        *to++ = (unsigned char)size;
    } else {
        *to++ = (unsigned char)(major | 26);
        for (int shift = 24; shift >= 0; shift -= 8) *to++ = (unsigned char)(size >> shift);
    }
    writer->at = (char *)to;
}

/* Writes a name that is ready, and a text. */
static int put_text(struct writer *writer, const char *name, Py_ssize_t name_size, PyObject *text) {
    PyObject *holder;
    Py_ssize_t size;
    const char *bytes = utf8_of(text, &size, &holder);
    if (bytes == NULL) return -1;
    int result = size > UINT32_MAX ? -1 : writer_room(writer, name_size + 5 + size);
    if (result == 0) {
        put_bytes(writer, name, name_size);
        put_head(writer, TEXT, size);
        put_bytes(writer, bytes, size);
    }
    Py_XDECREF(holder);
    return result;
}

/* put_records_to_cbor(records: list, rest: bytes, omitted): `rest` is the stream's one member, without the head of its map.
 * Records whose key is the object `omitted` have no keys in it. */
PyObject *put_records_to_cbor(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 3 || !PyList_Check(arguments[0]) || !PyBytes_Check(arguments[1])) Py_RETURN_NONE;
    PyObject *records = arguments[0], *rest = arguments[1], *omitted = arguments[2];
    struct writer writer;
    Py_ssize_t expected = 64 + PyBytes_GET_SIZE(rest);
    if (PyList_GET_SIZE(records) > UINT32_MAX) Py_RETURN_NONE;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        look_ahead(records, i);
        look_into(records, i, DATA);
        look_into(records, i, KEY);
        PyObject *record = PyList_GET_ITEM(records, i);
        const struct places *places = places_of(Py_TYPE(record));
        PyObject *data = place(record, places, DATA), *key = place(record, places, KEY);
        if (data == NULL || !PyBytes_CheckExact(data) || key == NULL || !PyUnicode_CheckExact(key)) Py_RETURN_NONE;
        if (PyBytes_GET_SIZE(data) > UINT32_MAX) Py_RETURN_NONE;
        expected += PyBytes_GET_SIZE(data) + PyUnicode_GET_LENGTH(key) + 30;
    }
    if (body_begin(&writer, expected) < 0) return NULL;
    PUT_LITERAL(&writer, "\xa2gRecords");
    put_head(&writer, ARRAY, PyList_GET_SIZE(records));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        const struct places *places = places_of(Py_TYPE(record));
        PyObject *data = place(record, places, DATA), *hash_key = place(record, places, HASH_KEY);
        Py_ssize_t size = PyBytes_GET_SIZE(data);
        if (hash_key == NULL || (hash_key != Py_None && !PyUnicode_CheckExact(hash_key))) goto failed;
        if (writer_room(&writer, size + 16) < 0) goto failed;
        PyObject *key = place(record, places, KEY);
        *writer.at++ = (char)(key == omitted ? MAP | 1 : hash_key == Py_None ? MAP | 2 : MAP | 3);
        PUT_LITERAL(&writer, "dData");
        put_head(&writer, BYTES, size);
        put_bytes(&writer, PyBytes_AS_STRING(data), size);
        if (key == omitted) continue;
        if (put_text(&writer, "lPartitionKey", 13, key) < 0) goto failed;
        if (hash_key != Py_None && put_text(&writer, "oExplicitHashKey", 16, hash_key) < 0) goto failed;
    }
    if (writer_room(&writer, PyBytes_GET_SIZE(rest)) < 0) goto failed;
    put_bytes(&writer, PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest));
    return body_finish(&writer);
failed:
    writer_drop(&writer);
    return not_mine();
}

/* --- Reading: the parts of CBOR ------------------------------------------------------------------------------------------ */

/* Reads the head of an item of one major type, with a definite size of up to four bytes. */
static bool pass_head(struct reader *reader, unsigned major, Py_ssize_t *size) {
    const unsigned char *at = (const unsigned char *)reader->at;
    Py_ssize_t left = reader->end - reader->at;
    if (left < 1 || (*at & 0xe0u) != major) return false;
    unsigned kind = *at & 0x1fu;
    int width = kind < 24 ? 0 : kind == 24 ? 1 : kind == 25 ? 2 : kind == 26 ? 4 : -1;
    if (width < 0 || left < 1 + width) return false;
    uint32_t value = kind < 24 ? kind : 0;
    for (int i = 1; i <= width; i++) value = value << 8 | at[i];
    *size = (Py_ssize_t)value;
    reader->at += 1 + width;
    return true;
}

/* Moves past a string of bytes or of text, and tells where its inside is. */
static bool pass_string(struct reader *reader, unsigned major, const char **inside, Py_ssize_t *size) {
    if (!pass_head(reader, major, size) || reader->end - reader->at < *size) return false;
    *inside = reader->at;
    reader->at += *size;
    return true;
}

/* Moves past a value that holds no other. What it is, the general decoder checks. */
static bool pass_scalar(struct reader *reader) {
    if (reader->at >= reader->end) return false;
    const char *inside;
    Py_ssize_t size;
    unsigned head = (unsigned char)*reader->at, major = head & 0xe0u;
    if (major == BYTES || major == TEXT) return pass_string(reader, major, &inside, &size);
    static const int WIDTHS[] = {1, 2, 4, 8};
    unsigned kind = head & 0x1fu;
    Py_ssize_t width = 1;
    if (kind >= 24 && kind < 28) width += WIDTHS[kind - 24];
    /* Whole numbers of both signs; true, false, null and the floats. Tags and what is nested are not for us. */
    if (kind >= 28 || !(major == 0x00 || major == 0x20 || major == 0xe0) || reader->end - reader->at < width) return false;
    reader->at += width;
    return true;
}

/* --- Reading: the list in an answer ---------------------------------------------------------------------------------------- */

typedef PyObject *(*entry_reader)(struct reader *reader, struct recent *recent);

/* Finds "Records" among the members of the answer, of which those before it hold no others; then reads its entries. */
static PyObject *read_list(struct reader *reader, entry_reader read_entry, const char **begin, Py_ssize_t *members_left) {
    Py_ssize_t members, size, count;
    const char *name;
    if (!pass_head(reader, MAP, &members)) return NULL;
    for (;; members--) {
        if (members == 0 || !pass_string(reader, TEXT, &name, &size)) return NULL;
        if (size == 7 && memcmp(name, "Records", 7) == 0) break;
        if (!pass_scalar(reader)) return NULL;
    }
    *members_left = members - 1;
    *begin = reader->at;
    if (!pass_head(reader, ARRAY, &count) || count > reader->end - reader->at) return NULL;
    PyObject *entries = PyList_New(0); /* grown as entries are found: a count is only a claim */
    if (entries == NULL) return NULL;
    struct recent recent = {{NULL}};
    for (; count > 0; count--) {
        PyObject *entry = read_entry(reader, &recent);
        int appended = entry == NULL ? -1 : PyList_Append(entries, entry);
        Py_XDECREF(entry);
        if (appended < 0) break;
    }
    recent_drop(&recent);
    if (count == 0) return entries;
    Py_DECREF(entries);
    return NULL;
}

/* Returns (entries, the answer with an empty list in their place). */
static PyObject *read_answer(PyObject *body, entry_reader read_entry) {
    if (!PyBytes_Check(body)) Py_RETURN_NONE;
    const char *whole = PyBytes_AS_STRING(body), *begin;
    struct reader reader = {whole, whole + PyBytes_GET_SIZE(body)};
    Py_ssize_t members_left;
    PyObject *entries = read_list(&reader, read_entry, &begin, &members_left);
    if (entries == NULL) return not_mine();
    /* The members after the list must be such that none of them can be the same once more. */
    struct reader tail = reader;
    for (; members_left > 0; members_left--) {
        const char *name;
        Py_ssize_t size;
        if (!pass_string(&tail, TEXT, &name, &size) || (size == 7 && memcmp(name, "Records", 7) == 0) || !pass_scalar(&tail)) break;
    }
    if (members_left > 0) {
        Py_DECREF(entries);
        Py_RETURN_NONE;
    }
    Py_ssize_t before = begin - whole, after = reader.end - reader.at;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, before + 1 + after);
    if (rest == NULL) {
        Py_DECREF(entries);
        return NULL;
    }
    char *to = PyBytes_AS_STRING(rest);
    memcpy(to, whole, (size_t)before);
    to[before] = (char)ARRAY;
    memcpy(to + before + 1, reader.at, (size_t)after);
    return Py_BuildValue("(NN)", entries, rest);
}

/* --- Reading: entries -------------------------------------------------------------------------------------------------------- */

static PyObject *read_result(struct reader *reader, struct recent *recent) {
    PyObject *values[RESULT_FIELDS] = {NULL};
    Py_ssize_t members;
    if (!pass_head(reader, MAP, &members)) return NULL;
    for (; members > 0; members--) {
        const char *text;
        Py_ssize_t size;
        int which = PASS(reader, "nSequenceNumber") ? RESULT_NUMBER
                    : PASS(reader, "gShardId")      ? RESULT_SHARD
                    : PASS(reader, "iErrorCode")    ? RESULT_CODE
                    : PASS(reader, "lErrorMessage") ? RESULT_MESSAGE
                                                    : -1;
        if (which < 0 || values[which] != NULL || !pass_string(reader, TEXT, &text, &size)) goto other;
        values[which] = which == RESULT_NUMBER ? new_text(text, size) : recent_text(recent, text, size);
        if (values[which] == NULL) goto other;
    }
    return new_struct(&result_layout, values, RESULT_FIELDS);
other:
    for (int i = 0; i < RESULT_FIELDS; i++) Py_XDECREF(values[i]);
    return NULL;
}

/* Milliseconds under tag 1, as whole numbers of four or eight bytes. */
static PyObject *read_arrival(struct reader *reader) {
    int width = PASS(reader, "\xc1\x1b") ? 8 : PASS(reader, "\xc1\x1a") ? 4 : 0;
    if (width == 0 || reader->end - reader->at < width) return NULL;
    uint64_t millis = 0;
    for (int i = 0; i < width; i++) millis = millis << 8 | (unsigned char)*reader->at++;
    return millis < (uint64_t)1 << 53 ? PyFloat_FromDouble((double)millis / 1000) : NULL;
}

static PyObject *read_record(struct reader *reader, struct recent *Py_UNUSED(recent)) {
    PyObject *values[RECEIVED_FIELDS] = {NULL};
    Py_ssize_t members, size;
    const char *inside;
    if (!pass_head(reader, MAP, &members)) return NULL;
    for (; members > 0; members--) {
        int which;
        PyObject *value = NULL;
        if (PASS(reader, "nSequenceNumber")) {
            which = RECEIVED_NUMBER;
            if (pass_string(reader, TEXT, &inside, &size)) value = new_text(inside, size);
        } else if (PASS(reader, "x\x1b" "ApproximateArrivalTimestamp")) {
            which = RECEIVED_ARRIVAL;
            value = read_arrival(reader);
        } else if (PASS(reader, "dData")) {
            which = RECEIVED_DATA;
            if (pass_string(reader, BYTES, &inside, &size)) value = PyBytes_FromStringAndSize(inside, size);
        } else if (PASS(reader, "lPartitionKey")) {
            which = RECEIVED_KEY;
            if (pass_string(reader, TEXT, &inside, &size)) value = new_text(inside, size);
        } else if (PASS(reader, "nEncryptionType")) {
            which = RECEIVED_ENCRYPTION;
            if (PASS(reader, "dNONE"))
                value = Py_NewRef(encryption_none);
            else if (PASS(reader, "cKMS"))
                value = Py_NewRef(encryption_kms);
        } else {
            goto other;
        }
        if (value == NULL) goto other;
        if (values[which] != NULL) {
            Py_DECREF(value);
            goto other;
        }
        values[which] = value;
    }
    if (values[RECEIVED_DATA] == NULL || values[RECEIVED_NUMBER] == NULL || values[RECEIVED_ARRIVAL] == NULL) goto other;
    return new_struct(&received_layout, values, RECEIVED_FIELDS);
other:
    for (int i = 0; i < RECEIVED_FIELDS; i++) Py_XDECREF(values[i]);
    return NULL;
}

PyObject *results_from_cbor(PyObject *Py_UNUSED(module), PyObject *body) { return read_answer(body, read_result); }

PyObject *page_from_cbor(PyObject *Py_UNUSED(module), PyObject *body) { return read_answer(body, read_record); }
