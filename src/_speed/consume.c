/* Records that were read, given their origin and taken apart. Twins: kinstream.consume.deaggregate, kinstream.kpl.container. */
#include "speed.h"

/* More keys or records than that in one container are made bit by bit, by the twin: the memory must stay bounded. */
enum { KEYS_MAX = 1024, RECORDS_MAX = 1024 };

enum { MAGIC_BYTES = 4, DIGEST_BYTES = 16 };

/* A key of one of the container's tables. */
struct known_key {
    const char *text;
    Py_ssize_t size;
    PyObject *made; /* NULL until a record has it */
    bool used;      /* by a record whose shard it decides */
};

struct key_table {
    struct known_key keys[KEYS_MAX];
    Py_ssize_t count;
};

static bool pass_varint(struct reader *reader, Py_ssize_t *number) {
    uint32_t value = 0;
    for (int shift = 0; shift < 28; shift += 7) { /* four bytes: far more than a record of Kinesis may have */
        if (reader->at >= reader->end) return false;
        unsigned char byte = (unsigned char)*reader->at++;
        value |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *number = (Py_ssize_t)value;
            return true;
        }
    }
    return false;
}

/* Moves past a field's content of a stated length, and tells where it is. */
static bool pass_field(struct reader *reader, const char **content, Py_ssize_t *size) {
    if (!pass_varint(reader, size) || *size > reader->end - reader->at) return false;
    *content = reader->at;
    reader->at += *size;
    return true;
}

static bool read_keys(struct reader *reader, char tag, struct key_table *table) {
    while (reader->at < reader->end && *reader->at == tag) {
        if (table->count == KEYS_MAX) return false;
        struct known_key *key = &table->keys[table->count];
        reader->at++;
        if (!pass_field(reader, &key->text, &key->size)) return false;
        key->made = NULL;
        key->used = false;
        table->count++;
    }
    return true;
}

/* Every key is made, used or not: one that is no UTF-8 makes the whole container none, as its twin has it. */
static bool make_keys(struct key_table *table) {
    for (Py_ssize_t i = 0; i < table->count; i++) {
        struct known_key *key = &table->keys[i];
        key->made = is_no_key(key->text, key->size) ? Py_NewRef(Py_None) : new_text(key->text, key->size);
        if (key->made == NULL) return false;
    }
    return true;
}

static void drop_keys(struct key_table *table) {
    for (Py_ssize_t i = 0; i < table->count; i++) Py_CLEAR(table->keys[i].made);
}

static bool within(const unsigned char hash_key[16], const char *low, const char *high) {
    return memcmp(low, hash_key, 16) <= 0 && memcmp(hash_key, high, 16) <= 0;
}

/* Whether every key that decides a record's shard lies in the range. */
static bool all_within(const struct key_table *keys, const struct key_table *hash_keys, const char *low, const char *high) {
    const char *texts[8];
    Py_ssize_t sizes[8];
    unsigned char digests[8][16];
    int count = 0;
    for (Py_ssize_t i = 0; i < hash_keys->count; i++) {
        const struct known_key *key = &hash_keys->keys[i];
        if (key->used && !(read_hash_key(key->text, key->size, digests[0]) && within(digests[0], low, high))) return false;
    }
    for (Py_ssize_t i = 0; i <= keys->count; i++) {
        const struct known_key *key = i < keys->count ? &keys->keys[i] : NULL;
        if (key != NULL && key->used && key->size > SHORT_KEY) {
            md5(key->text, key->size, digests[0]);
            if (!within(digests[0], low, high)) return false;
        } else if (key != NULL && key->used) {
            texts[count] = key->text;
            sizes[count++] = key->size;
        }
        if (count == 8 || (key == NULL && count > 0)) {
            md5_of_short_keys(texts, sizes, count, digests);
            while (count > 0)
                if (!within(digests[--count], low, high)) return false;
        }
    }
    return true;
}

static PyObject *read_records(struct reader *reader, PyObject *record, PyObject *origin, struct key_table *keys,
                              struct key_table *hash_keys) {
    const struct layout *layout = &received_layout;
    PyObject *made = PyList_New(0);
    if (made == NULL) return NULL;
    for (Py_ssize_t index = 0; reader->at < reader->end; index++) {
        const char *content, *data;
        Py_ssize_t size, key, hash_key = -1, data_size;
        if (index == RECORDS_MAX || !PASS(reader, "\x1a") || !pass_field(reader, &content, &size)) goto other;
        struct reader inside = {content, content + size};
        if (!PASS(&inside, "\x08") || !pass_varint(&inside, &key) || key >= keys->count) goto other;
        if (PASS(&inside, "\x10") && (!pass_varint(&inside, &hash_key) || hash_key >= hash_keys->count)) goto other;
        if (!PASS(&inside, "\x1a") || !pass_field(&inside, &data, &data_size) || inside.at != inside.end) goto other;
        if (hash_key < 0)
            keys->keys[key].used = true;
        else
            hash_keys->keys[hash_key].used = true;
        PyObject *values[RECEIVED_FIELDS];
        values[RECEIVED_DATA] = PyBytes_FromStringAndSize(data, data_size);
        values[RECEIVED_NUMBER] = Py_NewRef(*field(record, layout, RECEIVED_NUMBER));
        values[RECEIVED_ARRIVAL] = Py_NewRef(*field(record, layout, RECEIVED_ARRIVAL));
        values[RECEIVED_KEY] = Py_NewRef(keys->keys[key].made);
        values[RECEIVED_ENCRYPTION] = Py_NewRef(*field(record, layout, RECEIVED_ENCRYPTION));
        values[RECEIVED_INDEX] = PyLong_FromSsize_t(index);
        values[RECEIVED_ORIGIN] = Py_NewRef(origin);
        bool whole = values[RECEIVED_DATA] != NULL && values[RECEIVED_INDEX] != NULL;
        PyObject *user_record = new_struct(layout, values, RECEIVED_FIELDS);
        if (user_record == NULL) goto other;
        int appended = whole ? PyList_Append(made, user_record) : -1;
        Py_DECREF(user_record);
        if (appended < 0) goto other;
    }
    return made;
other:
    Py_DECREF(made);
    return NULL;
}

/* Where an aggregate's message is, between its magic bytes and its MD5. */
static bool find_message(PyObject *record, struct reader *message) {
    if (!Py_IS_TYPE(record, received_layout.type)) return false;
    PyObject *data = *field(record, &received_layout, RECEIVED_DATA);
    if (data == NULL || !PyBytes_CheckExact(data)) return false;
    *message = (struct reader){PyBytes_AS_STRING(data), PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data)};
    if (!PASS(message, "\xf3\x89\x9a\xc2") || message->end - message->at <= DIGEST_BYTES) return false;
    message->end -= DIGEST_BYTES;
    return true;
}

/* intact_aggregates(records: list, indexes: list): twin of kinstream.kpl.expand.intact_aggregates. */
PyObject *intact_aggregates(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "intact_aggregates(records: list, indexes: list)");
        return NULL;
    }
    PyObject *records = arguments[0], *indexes = arguments[1], *result = NULL;
    Py_ssize_t asked = PyList_GET_SIZE(indexes), found = 0;
    struct {
        const char **messages;
        Py_ssize_t *sizes, *places;
        unsigned char (*digests)[16];
    } all = {PyMem_New(const char *, asked), PyMem_New(Py_ssize_t, asked), PyMem_New(Py_ssize_t, asked), PyMem_Malloc(16 * (size_t)asked)};
    if (all.messages == NULL || all.sizes == NULL || all.places == NULL || all.digests == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    PyObject *flags = PyList_New(asked);
    if (flags == NULL) goto done;
    for (Py_ssize_t i = 0; i < asked; i++) {
        PyList_SET_ITEM(flags, i, Py_NewRef(Py_False));
        Py_ssize_t index = PyLong_AsSsize_t(PyList_GET_ITEM(indexes, i));
        if (index < 0 || index >= PyList_GET_SIZE(records)) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_IndexError, "intact_aggregates: no record has this index");
            Py_DECREF(flags);
            goto done;
        }
        struct reader message;
        if (!find_message(PyList_GET_ITEM(records, index), &message)) continue;
        all.messages[found] = message.at;
        all.sizes[found] = message.end - message.at;
        all.places[found++] = i;
    }
    md5_of_many(all.messages, all.sizes, found, all.digests);
    for (Py_ssize_t i = 0; i < found; i++)
        if (memcmp(all.digests[i], all.messages[i] + all.sizes[i], DIGEST_BYTES) == 0)
            PyList_SetItem(flags, all.places[i], Py_NewRef(Py_True));
    result = flags;
done:
    PyMem_Free(all.messages);
    PyMem_Free(all.sizes);
    PyMem_Free(all.places);
    PyMem_Free(all.digests);
    return result;
}

/* user_records(record, origin, low, high, intact): what is in an aggregated record as every known writer writes it, all in the range.
 * None, as ever, is "not mine": a plain record, a damaged one, one outside the range. */
PyObject *user_records(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    struct reader reader;
    if (count < 4 || count > 5 || !find_message(arguments[0], &reader)) Py_RETURN_NONE;
    PyObject *record = arguments[0], *origin = arguments[1], *low = arguments[2], *high = arguments[3];
    PyObject *intact = count == 5 ? arguments[4] : Py_None;
    for (int i = 0; i < RECEIVED_FIELDS; i++)
        if (*field(record, &received_layout, i) == NULL) Py_RETURN_NONE;
    bool ranged = low != Py_None;
    if (ranged && (!PyBytes_CheckExact(low) || PyBytes_GET_SIZE(low) != 16 || !PyBytes_CheckExact(high) ||
                   PyBytes_GET_SIZE(high) != 16))
        Py_RETURN_NONE;
    if (intact != Py_True) {
        unsigned char digest[DIGEST_BYTES];
        if (intact != Py_None) Py_RETURN_NONE;
        md5(reader.at, reader.end - reader.at, digest);
        if (memcmp(digest, reader.end, DIGEST_BYTES) != 0) Py_RETURN_NONE;
    }
    struct key_table *tables = PyMem_Malloc(2 * sizeof *tables); /* too large for the stack of a thread */
    if (tables == NULL) return PyErr_NoMemory();
    struct key_table *keys = &tables[0], *hash_keys = &tables[1];
    keys->count = hash_keys->count = 0;
    PyObject *made = NULL;
    if (read_keys(&reader, '\x0a', keys) && read_keys(&reader, '\x12', hash_keys) && make_keys(keys) && make_keys(hash_keys)) {
        made = read_records(&reader, record, origin, keys, hash_keys);
        if (made != NULL && ranged && !all_within(keys, hash_keys, PyBytes_AS_STRING(low), PyBytes_AS_STRING(high)))
            Py_CLEAR(made);
    }
    drop_keys(keys);
    drop_keys(hash_keys);
    PyMem_Free(tables);
    return made == NULL ? not_mine() : made;
}

/* Also takes the key off records that were put without one.
 * set_origin(records: list, origin): twin of kinstream.consume.deaggregate.set_origin. */
PyObject *set_origin(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0])) Py_RETURN_NONE;
    PyObject *records = arguments[0], *origin = arguments[1];
    PyObject *suspects = PyList_New(0);
    if (suspects == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        PyObject *data = Py_IS_TYPE(record, received_layout.type) ? *field(record, &received_layout, RECEIVED_DATA) : NULL;
        if (data == NULL || !PyBytes_CheckExact(data)) goto other;
        if (PyBytes_GET_SIZE(data) > 0 && (unsigned char)*PyBytes_AS_STRING(data) == 0xf3) {
            PyObject *index = PyLong_FromSsize_t(i);
            int appended = index == NULL ? -1 : PyList_Append(suspects, index);
            Py_XDECREF(index);
            if (appended < 0) goto other;
        }
        Py_XSETREF(*field(record, &received_layout, RECEIVED_ORIGIN), Py_NewRef(origin));
        PyObject **key = field(record, &received_layout, RECEIVED_KEY);
        if (*key != NULL && PyUnicode_CheckExact(*key) && is_no_key_text(*key)) Py_SETREF(*key, Py_NewRef(Py_None));
    }
    return suspects;
other:
    Py_DECREF(suspects);
    return not_mine();
}
