/* JSON 1.1: the body of PutRecords, and the lists of records in two answers. Twins: kinstream.aws.codec.JsonCodec. */
#include "speed.h"

/* --- Writing --------------------------------------------------------------------------------------------------------- */

/* Writes the inside of a JSON string, as msgspec would; there is room for six times the size. */
static void put_escaped(struct writer *writer, const char *text, Py_ssize_t size) {
    static const char HEX[] = "0123456789abcdef";
    char *to = writer->at;
    for (const char *end = text + size; text < end; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != '"' && c != '\\') {
            *to++ = (char)c;
            continue;
        }
        *to++ = '\\';
        switch (c) {
        case '"':
        case '\\': *to++ = (char)c; break;
        case '\b': *to++ = 'b'; break;
        case '\f': *to++ = 'f'; break;
        case '\n': *to++ = 'n'; break;
        case '\r': *to++ = 'r'; break;
        case '\t': *to++ = 't'; break;
        default:
            memcpy(to, "u00", 3);
            to[3] = HEX[c >> 4];
            to[4] = HEX[c & 15];
            to += 5;
        }
    }
    writer->at = to;
}

/* Writes `before`, then `text` escaped, without the closing quote. */
static int put_text(struct writer *writer, const char *before, PyObject *text, Py_ssize_t further_room) {
    PyObject *holder;
    Py_ssize_t size, before_size = (Py_ssize_t)strlen(before);
    const char *bytes = utf8_of(text, &size, &holder);
    if (bytes == NULL) return -1;
    int result = size > PY_SSIZE_T_MAX / 8 ? -1 : writer_room(writer, before_size + 6 * size + further_room);
    if (result == 0) {
        put_bytes(writer, before, before_size);
        put_escaped(writer, bytes, size);
    }
    Py_XDECREF(holder);
    return result;
}

/* put_records_to_json(records: list, rest: bytes, omitted): `rest` is the text after the list, from its comma on. Records
 * whose key is the object `omitted` have no keys in it. */
PyObject *put_records_to_json(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 3 || !PyList_Check(arguments[0]) || !PyBytes_Check(arguments[1])) Py_RETURN_NONE;
    PyObject *records = arguments[0], *rest = arguments[1], *omitted = arguments[2];
    struct writer writer;
    Py_ssize_t expected = 64 + PyBytes_GET_SIZE(rest);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        look_ahead(records, i);
        look_into(records, i, DATA);
        look_into(records, i, KEY);
        PyObject *record = PyList_GET_ITEM(records, i);
        const struct places *places = places_of(Py_TYPE(record));
        PyObject *data = place(record, places, DATA), *key = place(record, places, KEY);
        if (data == NULL || !PyBytes_CheckExact(data) || key == NULL || !PyUnicode_CheckExact(key)) Py_RETURN_NONE;
        if (PyBytes_GET_SIZE(data) > (Py_ssize_t)1 << 40) Py_RETURN_NONE;
        expected += base64_size(PyBytes_GET_SIZE(data)) + PyUnicode_GET_LENGTH(key) + 32;
    }
    if (body_begin(&writer, expected) < 0) return NULL;
    PUT_LITERAL(&writer, "{\"Records\":[");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        const struct places *places = places_of(Py_TYPE(record));
        PyObject *data = place(record, places, DATA), *hash_key = place(record, places, HASH_KEY);
        PyObject *key = place(record, places, KEY);
        Py_ssize_t size = PyBytes_GET_SIZE(data);
        if (writer_room(&writer, base64_size(size) + 16) < 0) goto failed;
        if (i > 0) *writer.at++ = ',';
        PUT_LITERAL(&writer, "{\"Data\":\"");
        writer.at = base64_encode(writer.at, (const unsigned char *)PyBytes_AS_STRING(data), size);
        if (key != omitted && put_text(&writer, "\",\"PartitionKey\":\"", key, 2) < 0) goto failed;
        if (hash_key != Py_None && key != omitted) {
            if (hash_key == NULL || !PyUnicode_CheckExact(hash_key)) goto failed;
            if (put_text(&writer, "\",\"ExplicitHashKey\":\"", hash_key, 2) < 0) goto failed;
        }
        PUT_LITERAL(&writer, "\"}");
    }
    if (writer_room(&writer, 1 + PyBytes_GET_SIZE(rest)) < 0) goto failed;
    *writer.at++ = ']';
    put_bytes(&writer, PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest));
    return body_finish(&writer);
failed:
    writer_drop(&writer);
    return not_mine();
}

/* --- Reading: the parts of JSON ---------------------------------------------------------------------------------------- */

static void pass_blanks(struct reader *reader) {
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

/* Moves past one character, and the blanks round it. */
static bool pass_sign(struct reader *reader, char sign) {
    pass_blanks(reader);
    if (reader->at >= reader->end || *reader->at != sign) return false;
    reader->at++;
    pass_blanks(reader);
    return true;
}

/* Moves past a string, and tells where its inside is. One with an escape or a control character in it is not for us. */
static bool pass_string(struct reader *reader, const char **text, Py_ssize_t *size) {
    if (reader->at >= reader->end || *reader->at != '"') return false;
    const char *begin = reader->at + 1;
    const char *end = memchr(begin, '"', (size_t)(reader->end - begin));
    if (end == NULL) return false;
    /* Eight bytes at a time: a byte below 0x20 borrows from its highest bit, a backslash makes a zero byte. */
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t odd = 0, word;
    const char *at = begin;
    for (; end - at >= 8; at += 8) {
        memcpy(&word, at, 8);
        uint64_t slashes = word ^ (ones * '\\');
        odd |= ((word - ones * 0x20) & ~word) | ((slashes - ones) & ~slashes);
    }
    odd &= highs;
    for (; at < end; at++) odd |= (unsigned char)*at < 0x20 || *at == '\\';
    if (odd) return false;
    *text = begin;
    *size = end - begin;
    reader->at = end + 1;
    return true;
}

/* Moves past a value that holds no other: text, a number, true, false or null. What it is, the general decoder checks. */
static bool pass_scalar(struct reader *reader) {
    const char *text;
    Py_ssize_t size;
    if (reader->at < reader->end && *reader->at == '"') return pass_string(reader, &text, &size);
    const char *begin = reader->at;
    while (reader->at < reader->end && *reader->at != ',' && *reader->at != '}') {
        if (memchr("[]{\":\\", *reader->at, 6) != NULL) return false;
        reader->at++;
    }
    return reader->at > begin;
}

/* Reads a number that is not negative, where its double is exact by one multiplication or division (both sides exact). */
static bool pass_number(struct reader *reader, double *number) {
    static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *at = reader->at, *end = reader->end, *begin = at;
    uint64_t digits = 0;
    int exponent = 0, count = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++, count++) {
        if (count == 18) return false;
        digits = digits * 10 + (uint64_t)(*at - '0');
    }
    if (count == 0 || (count > 1 && *begin == '0')) return false;
    if (at < end && *at == '.') {
        const char *point = at++;
        for (; at < end && *at >= '0' && *at <= '9'; at++, count++, exponent--) {
            if (count == 18) return false;
            digits = digits * 10 + (uint64_t)(*at - '0');
        }
        if (at == point + 1) return false;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        bool negative = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+')) at++;
        int power = 0;
        const char *first = at;
        for (; at < end && *at >= '0' && *at <= '9'; at++) {
            if (at - first == 3) return false;
            power = power * 10 + (*at - '0');
        }
        if (at == first) return false;
        exponent += negative ? -power : power;
    }
    if (digits >= (uint64_t)1 << 53 || exponent < -22 || exponent > 22) return false;
    *number = exponent < 0 ? (double)digits / POWERS[-exponent] : (double)digits * POWERS[exponent];
    reader->at = at;
    return true;
}

/* --- Reading: the list in an answer -------------------------------------------------------------------------------------- */

/* Reads one entry of the list, from its opening brace on; NULL as everywhere. */
typedef PyObject *(*entry_reader)(struct reader *reader, struct recent *recent);

/* Finds "Records" among the members of the answer, of which those before it hold no others; then reads its entries. */
static PyObject *read_list(struct reader *reader, entry_reader read_entry, const char **begin) {
    const char *name;
    Py_ssize_t size;
    if (!pass_sign(reader, '{')) return NULL;
    for (;;) {
        if (!pass_string(reader, &name, &size) || !pass_sign(reader, ':')) return NULL;
        if (size == 7 && memcmp(name, "Records", 7) == 0) break;
        if (!pass_scalar(reader) || !pass_sign(reader, ',')) return NULL;
    }
    *begin = reader->at;
    if (!pass_sign(reader, '[') || !starts_with(reader, "{", 1)) return NULL; /* an empty list is soon read by anyone */
    PyObject *entries = PyList_New(0);
    if (entries == NULL) return NULL;
    struct recent recent = {{NULL}};
    for (;;) {
        PyObject *entry = read_entry(reader, &recent);
        if (entry == NULL) break;
        int appended = PyList_Append(entries, entry);
        Py_DECREF(entry);
        if (appended < 0) break;
        if (reader->at < reader->end && *reader->at == ']') {
            reader->at++;
            recent_drop(&recent);
            return entries;
        }
        if (!pass_sign(reader, ',')) break;
    }
    recent_drop(&recent);
    Py_DECREF(entries);
    return NULL;
}

static bool contains(const char *at, const char *end, const char *text, Py_ssize_t size) {
    for (; end - at >= size; at++) {
        at = memchr(at, text[0], (size_t)(end - at - size + 1));
        if (at == NULL) return false;
        if (memcmp(at, text, (size_t)size) == 0) return true;
    }
    return false;
}

/* Returns (entries, the answer with an empty list in their place). */
static PyObject *read_answer(PyObject *body, entry_reader read_entry) {
    if (!PyBytes_Check(body)) Py_RETURN_NONE;
    const char *whole = PyBytes_AS_STRING(body), *begin;
    struct reader reader = {whole, whole + PyBytes_GET_SIZE(body)};
    PyObject *entries = read_list(&reader, read_entry, &begin);
    if (entries == NULL) return not_mine();
    Py_ssize_t before = begin - whole, after = reader.end - reader.at;
    /* The same member a second time, however it is written, would be the one that counts. */
    if (contains(reader.at, reader.end, "\"Records", 8) || contains(reader.at, reader.end, "\\", 1)) {
        Py_DECREF(entries);
        Py_RETURN_NONE;
    }
    PyObject *rest = PyBytes_FromStringAndSize(NULL, before + 2 + after);
    if (rest == NULL) {
        Py_DECREF(entries);
        return NULL;
    }
    char *to = PyBytes_AS_STRING(rest);
    memcpy(to, whole, (size_t)before);
    memcpy(to + before, "[]", 2);
    memcpy(to + before + 2, reader.at, (size_t)after);
    return Py_BuildValue("(NN)", entries, rest);
}

/* --- Reading: entries ------------------------------------------------------------------------------------------------------ */

static PyObject *read_result(struct reader *reader, struct recent *recent) {
    PyObject *values[RESULT_FIELDS] = {NULL};
    if (!pass_sign(reader, '{')) return NULL;
    for (;;) {
        const char *text;
        Py_ssize_t size;
        int which = PASS(reader, "\"SequenceNumber\"") ? RESULT_NUMBER
                    : PASS(reader, "\"ShardId\"")      ? RESULT_SHARD
                    : PASS(reader, "\"ErrorCode\"")    ? RESULT_CODE
                    : PASS(reader, "\"ErrorMessage\"") ? RESULT_MESSAGE
                                                       : -1;
        if (which < 0 || values[which] != NULL || !pass_sign(reader, ':') || !pass_string(reader, &text, &size)) break;
        values[which] = which == RESULT_NUMBER ? new_text(text, size) : recent_text(recent, text, size);
        if (values[which] == NULL) break;
        if (reader->at < reader->end && *reader->at == ',') {
            reader->at++;
            pass_blanks(reader);
            continue;
        }
        if (!pass_sign(reader, '}')) break;
        return new_struct(&result_layout, values, RESULT_FIELDS);
    }
    for (int i = 0; i < RESULT_FIELDS; i++) Py_XDECREF(values[i]);
    return NULL;
}

static PyObject *read_record(struct reader *reader, struct recent *Py_UNUSED(recent)) {
    PyObject *values[RECEIVED_FIELDS] = {NULL};
    if (!pass_sign(reader, '{')) return NULL;
    for (;;) {
        const char *text = NULL;
        Py_ssize_t size = 0;
        double number;
        int which = PASS(reader, "\"SequenceNumber\"")                ? RECEIVED_NUMBER
                    : PASS(reader, "\"ApproximateArrivalTimestamp\"") ? RECEIVED_ARRIVAL
                    : PASS(reader, "\"Data\"")                        ? RECEIVED_DATA
                    : PASS(reader, "\"PartitionKey\"")                ? RECEIVED_KEY
                    : PASS(reader, "\"EncryptionType\"")              ? RECEIVED_ENCRYPTION
                                                                      : -1;
        if (which < 0 || values[which] != NULL || !pass_sign(reader, ':')) break;
        if (which == RECEIVED_ARRIVAL) {
            if (!pass_number(reader, &number)) break;
            values[which] = PyFloat_FromDouble(number);
        } else if (which == RECEIVED_DATA) {
            /* What is base64 has neither escapes nor control characters: decoding looks at each byte. */
            if (reader->at >= reader->end || *reader->at != '"') break;
            text = reader->at + 1;
            const char *end = memchr(text, '"', (size_t)(reader->end - text));
            if (end == NULL) break;
            values[which] = base64_decode(text, end - text);
            reader->at = end + 1;
        } else {
            if (!pass_string(reader, &text, &size)) break;
            if (which != RECEIVED_ENCRYPTION)
                values[which] = new_text(text, size);
            else if (size == 4 && memcmp(text, "NONE", 4) == 0)
                values[which] = Py_NewRef(encryption_none);
            else if (size == 3 && memcmp(text, "KMS", 3) == 0)
                values[which] = Py_NewRef(encryption_kms);
        }
        if (values[which] == NULL) break;
        pass_blanks(reader);
        if (reader->at < reader->end && *reader->at == ',') {
            reader->at++;
            pass_blanks(reader);
            continue;
        }
        if (values[RECEIVED_DATA] == NULL || values[RECEIVED_NUMBER] == NULL || values[RECEIVED_ARRIVAL] == NULL) break;
        if (!pass_sign(reader, '}')) break;
        return new_struct(&received_layout, values, RECEIVED_FIELDS);
    }
    for (int i = 0; i < RECEIVED_FIELDS; i++) Py_XDECREF(values[i]);
    return NULL;
}

PyObject *results_from_json(PyObject *Py_UNUSED(module), PyObject *body) { return read_answer(body, read_result); }

PyObject *page_from_json(PyObject *Py_UNUSED(module), PyObject *body) { return read_answer(body, read_record); }
