/* The producer's loops over many records: admitted, packed into aggregates, settled. Twins: kinstream.produce. */
#include "speed.h"

/* --- Admit ----------------------------------------------------------------------------------------------------------- */

/* The class is the same in every call, so its layout is learned in the first. */
static const struct layout *delivery_layout(PyObject *class) {
    static const char *const FIELDS[] = {"data", "partition_key", "explicit_hash_key", "size", "admitted"};
    static struct layout layout;
    if (layout.type != (PyTypeObject *)class && (!PyType_Check(class) || learn_layout(&layout, class, FIELDS, 5) < 0)) {
        PyErr_Clear();
        return NULL;
    }
    return &layout;
}

/* A delivery of bytes and an ASCII key that can go just as they are; NULL as everywhere. Their size is added to `total`. */
static PyObject *admitted(const struct layout *layout, PyObject *data, PyObject *key, Py_ssize_t limit, Py_ssize_t longest_key,
                          PyObject *admission, Py_ssize_t *total) {
    if (!PyBytes_CheckExact(data) || !PyUnicode_CheckExact(key) || !PyUnicode_IS_COMPACT_ASCII(key)) return NULL;
    Py_ssize_t length = PyUnicode_GET_LENGTH(key), size = PyBytes_GET_SIZE(data) + length;
    if (length == 0 || length > longest_key || size > limit) return NULL;
    if (PyBytes_GET_SIZE(data) > 0 && (unsigned char)*PyBytes_AS_STRING(data) == 0xf3) return NULL; /* perhaps an aggregate */
    if (is_no_key_text(key)) return NULL;
    PyObject *number = PyLong_FromSsize_t(size);
    if (number == NULL) return NULL;
    if (total != NULL) *total += size;
    PyObject *values[] = {Py_NewRef(data), Py_NewRef(key), Py_NewRef(Py_None), number, Py_NewRef(admission)};
    return new_struct(layout, values, 5);
}

/* admit_pairs(Delivery, records: list, limit, longest_key, admitted): twin of kinstream.produce.admit.admit_pairs. */
PyObject *admit_pairs(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 5 || !PyList_Check(arguments[1]) || !PyFloat_CheckExact(arguments[4])) Py_RETURN_NONE;
    const struct layout *layout = delivery_layout(arguments[0]);
    PyObject *records = arguments[1];
    Py_ssize_t limit = PyLong_AsSsize_t(arguments[2]), longest_key = PyLong_AsSsize_t(arguments[3]), total = 0;
    if (PyErr_Occurred()) return NULL;
    if (layout == NULL) Py_RETURN_NONE;
    PyObject *deliveries = PyList_New(PyList_GET_SIZE(records));
    if (deliveries == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        bool pair = PyTuple_CheckExact(record) && PyTuple_GET_SIZE(record) == 2;
        PyObject *delivery = !pair ? NULL : admitted(layout, PyTuple_GET_ITEM(record, 0), PyTuple_GET_ITEM(record, 1), limit,
                                                     longest_key, arguments[4], &total);
        if (delivery == NULL) {
            Py_DECREF(deliveries);
            return not_mine();
        }
        PyList_SET_ITEM(deliveries, i, delivery);
    }
    return Py_BuildValue("(Nn)", deliveries, total);
}

/* admit_one(Delivery, data, key, limit, longest_key, admitted): twin of kinstream.produce.admit.admit_one. */
PyObject *admit_one(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 6 || !PyFloat_CheckExact(arguments[5])) Py_RETURN_NONE;
    const struct layout *layout = delivery_layout(arguments[0]);
    Py_ssize_t limit = PyLong_AsSsize_t(arguments[3]), longest_key = PyLong_AsSsize_t(arguments[4]);
    if (PyErr_Occurred()) return NULL;
    PyObject *delivery = layout == NULL ? NULL : admitted(layout, arguments[1], arguments[2], limit, longest_key, arguments[5], NULL);
    return delivery == NULL ? not_mine() : delivery;
}

/* --- Pack -------------------------------------------------------------------------------------------------------------- */

/* Tags of the protobuf message, see kinstream.kpl.message. */
enum { KEY_TABLE = 0x0a, HASH_KEY_TABLE = 0x12, RECORDS = 0x1a, KEY_INDEX = 0x08, HASH_KEY_INDEX = 0x10, INNER_DATA = 0x1a };
enum { MAGIC_BYTES = 4, DIGEST_BYTES = 16 };

static int varint_size(size_t number) {
    int size = 1;
    for (; number > 0x7f; number >>= 7) size++;
    return size;
}

static void put_varint(struct writer *writer, size_t number) {
    for (; number > 0x7f; number >>= 7) *writer->at++ = (char)(number | 0x80);
    *writer->at++ = (char)number;
}

/* A table of keys in the message, and where each of them stands in it. */
struct table {
    char tag;
    PyObject *indexes;
    struct writer writer;
};

/* What a key that a record names would cost. */
struct named {
    PyObject *key, *holder;
    const char *text; /* NULL: it is in the table */
    Py_ssize_t size, index, cost;
};

static int look_up(struct table *table, PyObject *key, struct named *named) {
    *named = (struct named){.key = key};
    PyObject *index = PyDict_GetItemWithError(table->indexes, key);
    if (index != NULL) {
        named->index = PyLong_AsSsize_t(index);
        return 0;
    }
    if (PyErr_Occurred()) return -1;
    named->text = utf8_of(key, &named->size, &named->holder);
    if (named->text == NULL) return -1;
    named->index = PyDict_GET_SIZE(table->indexes);
    named->cost = 1 + varint_size((size_t)named->size) + named->size;
    return 0;
}

static int write_down(struct table *table, struct named *named) {
    if (named->text == NULL) return 0;
    PyObject *index = PyLong_FromSsize_t(named->index);
    int result = index == NULL ? -1 : PyDict_SetItem(table->indexes, named->key, index);
    Py_XDECREF(index);
    if (result < 0 || writer_room(&table->writer, named->cost) < 0) return -1;
    *table->writer.at++ = table->tag;
    put_varint(&table->writer, (size_t)named->size);
    put_bytes(&table->writer, named->text, named->size);
    return 0;
}

static Py_ssize_t written(const struct writer *writer) { return writer->at - PyBytes_AS_STRING(writer->bytes); }

/* fill(entries: list, start, max_bytes, max_records, guess): twin of kinstream.produce.aggregate.fill, which alone needs the
 * guess. */
PyObject *fill(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 5 || !PyList_Check(arguments[0])) Py_RETURN_NONE;
    PyObject *entries = arguments[0], *made = NULL;
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), max_bytes = PyLong_AsSsize_t(arguments[2]);
    Py_ssize_t max_records = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred()) return NULL;
    if (start < 0 || max_bytes < 0 || max_bytes > 1 << 30) Py_RETURN_NONE;
    Py_ssize_t room = max_bytes - MAGIC_BYTES - DIGEST_BYTES, packed = 0;
    struct table keys = {.tag = KEY_TABLE, .indexes = PyDict_New()};
    struct table hash_keys = {.tag = HASH_KEY_TABLE, .indexes = PyDict_New()};
    struct writer records = {NULL, NULL, NULL};
    struct named key = {.text = NULL}, hash_key = {.text = NULL};
    if (keys.indexes == NULL || hash_keys.indexes == NULL || writer_begin(&keys.writer, 4096) < 0 ||
        writer_begin(&hash_keys.writer, 64) < 0 || writer_begin(&records, max_bytes < 65536 ? max_bytes : 65536) < 0)
        goto done;
    for (Py_ssize_t i = start; i < PyList_GET_SIZE(entries) && packed < max_records; i++, packed++) {
        look_ahead(entries, i);
        look_into(entries, i, DATA);
        look_into(entries, i, KEY);
        PyObject *entry = PyList_GET_ITEM(entries, i);
        const struct places *places = places_of(Py_TYPE(entry));
        PyObject *data = place(entry, places, DATA), *name = place(entry, places, KEY), *other = place(entry, places, HASH_KEY);
        if (data == NULL || !PyBytes_CheckExact(data) || name == NULL || !PyUnicode_CheckExact(name) || other == NULL ||
            !(other == Py_None || PyUnicode_CheckExact(other)))
            goto done;
        bool hashed = other != Py_None;
        if (look_up(&keys, name, &key) < 0 || (hashed && look_up(&hash_keys, other, &hash_key) < 0)) goto done;
        const char *payload = PyBytes_AS_STRING(data);
        Py_ssize_t size = PyBytes_GET_SIZE(data);
        PyObject *begin = place(entry, places, PAYLOAD_START);
        if (begin != NULL) { /* in a container of one, which is not for here */
            Py_ssize_t skipped = PyLong_Check(begin) ? PyLong_AsSsize_t(begin) : -1;
            if (skipped < 0 || skipped > size - DIGEST_BYTES) goto done;
            payload += skipped;
            size -= skipped + DIGEST_BYTES;
        }
        if (size > max_bytes) break;
        Py_ssize_t inside = 1 + varint_size((size_t)key.index) + 1 + varint_size((size_t)size) + size;
        if (hashed) inside += 1 + varint_size((size_t)hash_key.index);
        Py_ssize_t needed = 1 + varint_size((size_t)inside) + inside;
        room -= needed + key.cost + (hashed ? hash_key.cost : 0);
        if (room < 0) break;
        if (write_down(&keys, &key) < 0 || (hashed && write_down(&hash_keys, &hash_key) < 0)) goto done;
        if (writer_room(&records, needed) < 0) goto done;
        *records.at++ = RECORDS;
        put_varint(&records, (size_t)inside);
        *records.at++ = KEY_INDEX;
        put_varint(&records, (size_t)key.index);
        if (hashed) {
            *records.at++ = HASH_KEY_INDEX;
            put_varint(&records, (size_t)hash_key.index);
        }
        *records.at++ = INNER_DATA;
        put_varint(&records, (size_t)size);
        put_bytes(&records, payload, size);
        Py_CLEAR(key.holder);
        Py_CLEAR(hash_key.holder);
    }
    /* Magic, the tables, the records, and a blank for the MD5 of all but the magic. */
    Py_ssize_t message = written(&keys.writer) + written(&hash_keys.writer) + written(&records);
    made = PyBytes_FromStringAndSize(NULL, MAGIC_BYTES + message + DIGEST_BYTES);
    if (made == NULL) goto done;
    char *to = PyBytes_AS_STRING(made);
    memcpy(to, "\xf3\x89\x9a\xc2", MAGIC_BYTES);
    to += MAGIC_BYTES;
    const struct writer *parts[] = {&keys.writer, &hash_keys.writer, &records};
    for (int i = 0; i < 3; i++) {
        memcpy(to, PyBytes_AS_STRING(parts[i]->bytes), (size_t)written(parts[i]));
        to += written(parts[i]);
    }
    memset(to, 0, DIGEST_BYTES);
done:
    Py_XDECREF(key.holder);
    Py_XDECREF(hash_key.holder);
    Py_XDECREF(keys.indexes);
    Py_XDECREF(hash_keys.indexes);
    writer_drop(&keys.writer);
    writer_drop(&hash_keys.writer);
    writer_drop(&records);
    return made == NULL ? not_mine() : Py_BuildValue("(Nn)", made, packed);
}

enum { BLANKS_MAX = 64 };

/* Messages of aggregates whose MD5 is blank, to be hashed together. The MD5 comes behind each. */
struct blanks {
    int count;
    const char *messages[BLANKS_MAX];
    Py_ssize_t sizes[BLANKS_MAX];
};

static void write_md5s(struct blanks *blanks) {
    unsigned char digests[BLANKS_MAX][DIGEST_BYTES];
    md5_of_many(blanks->messages, blanks->sizes, blanks->count, digests);
    for (int i = 0; i < blanks->count; i++) memcpy((char *)blanks->messages[i] + blanks->sizes[i], digests[i], DIGEST_BYTES);
    blanks->count = 0;
}

/* Where an aggregate with a blank MD5 has its data; NULL: it is something else. */
static PyObject **blank_data(PyObject *entry) {
    static const char BLANK[DIGEST_BYTES];
    const struct places *places = places_of(Py_TYPE(entry));
    if (place(entry, places, MEMBERS) == NULL || place(entry, places, DATA) == NULL) return NULL;
    PyObject **at = (PyObject **)((char *)entry + places->offsets[DATA]);
    if (!PyBytes_CheckExact(*at) || PyBytes_GET_SIZE(*at) < MAGIC_BYTES + DIGEST_BYTES) return NULL;
    const char *end = PyBytes_AS_STRING(*at) + PyBytes_GET_SIZE(*at);
    return memcmp(end - DIGEST_BYTES, BLANK, DIGEST_BYTES) == 0 ? at : NULL;
}

/* write_digests(entries: list): twin of kinstream.produce.aggregate.write_digests. Bytes with one reference have no other user,
 * and change in place. */
PyObject *write_digests(PyObject *Py_UNUSED(module), PyObject *entries) {
    if (!PyList_Check(entries)) {
        PyErr_SetString(PyExc_TypeError, "write_digests(entries: list)");
        return NULL;
    }
    struct blanks blanks = {.count = 0};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); i++) {
        PyObject **data = blank_data(PyList_GET_ITEM(entries, i));
        if (data == NULL) continue;
        if (Py_REFCNT(*data) > 1) {
            PyObject *copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(*data), PyBytes_GET_SIZE(*data));
            if (copy == NULL) return NULL;
            Py_SETREF(*data, copy);
        }
        forget_hash(*data);
        blanks.messages[blanks.count] = PyBytes_AS_STRING(*data) + MAGIC_BYTES;
        blanks.sizes[blanks.count++] = PyBytes_GET_SIZE(*data) - MAGIC_BYTES - DIGEST_BYTES;
        if (blanks.count == BLANKS_MAX) write_md5s(&blanks);
    }
    write_md5s(&blanks);
    Py_RETURN_NONE;
}

/* --- Batch --------------------------------------------------------------------------------------------------------------- */

/* total_size(entries: list, start, stop): twin of kinstream.produce.batch.total_size. */
PyObject *total_size(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 3 || !PyList_Check(arguments[0])) Py_RETURN_NONE;
    PyObject *entries = arguments[0];
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), stop = PyLong_AsSsize_t(arguments[2]), total = 0;
    if (PyErr_Occurred()) return NULL;
    if (start < 0 || stop > PyList_GET_SIZE(entries)) Py_RETURN_NONE;
    for (Py_ssize_t i = start; i < stop; i++) {
        look_ahead(entries, i);
        PyObject *entry = PyList_GET_ITEM(entries, i), *size = place(entry, places_of(Py_TYPE(entry)), SIZE);
        if (size == NULL || !PyLong_CheckExact(size)) Py_RETURN_NONE;
        Py_ssize_t number = PyLong_AsSsize_t(size);
        if (number < 0 || number > PY_SSIZE_T_MAX - total) {
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        total += number;
    }
    return PyLong_FromSsize_t(total);
}

/* --- Settle -------------------------------------------------------------------------------------------------------------- */

static void put_place(PyObject *object, const struct places *places, enum place which, PyObject *value) {
    Py_XSETREF(*(PyObject **)((char *)object + places->offsets[which]), Py_NewRef(value));
}

/* Stores a value, and returns the one that it replaces, which the caller owns now. */
static PyObject *swap_place(PyObject *object, const struct places *places, enum place which, PyObject *value) {
    PyObject **at = (PyObject **)((char *)object + places->offsets[which]), *before = *at;
    *at = Py_NewRef(value);
    return before;
}

/* A number of attempts that is small, as all are; -1: it is something else, and an exception is set. */
static long attempts_of(PyObject *object, const struct places *places) {
    PyObject *attempts = place(object, places, ATTEMPTS);
    if (attempts == NULL || !PyLong_Check(attempts)) {
        PyErr_SetString(PyExc_TypeError, "mark_written: not a record on its way");
        return -1;
    }
    long number = PyLong_AsLong(attempts);
    if (number < 0 && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "mark_written: less than no attempts");
    return number;
}

/* Settled records, and the data that each had: freed at the end, or restored if memory runs out. */
struct settled {
    Py_ssize_t count, most;
    PyObject *(*log)[2];
};

/* Tells one delivery where it is, also as part of an aggregate, `whole`. Returns 0 where it was settled before, -1 on an error. */
static int settle_one(PyObject *delivery, PyObject *result, PyObject *whole, Py_ssize_t index, PyObject *empty, Py_ssize_t *size,
                      PyObject *awaited, struct settled *settled) {
    const struct places *places = places_of(Py_TYPE(delivery));
    PyObject *before = place(delivery, places, OUTCOME), *waiter = place(delivery, places, WAITER);
    PyObject *bytes = place(delivery, places, SIZE), *doubt = place(delivery, places, DOUBT);
    PyObject *data = place(delivery, places, DATA);
    if (before == NULL || waiter == NULL || bytes == NULL || doubt == NULL || data == NULL ||
        !Py_IS_TYPE(result, result_layout.type)) {
        PyErr_SetString(PyExc_TypeError, "mark_written: not a delivery, or not a result");
        return -1;
    }
    if (before != Py_None) return 0;
    if (settled->count == settled->most) {
        PyErr_SetString(PyExc_RuntimeError, "mark_written: the entries changed");
        return -1;
    }
    Py_ssize_t charged = PyLong_AsSsize_t(bytes);
    if (charged == -1 && PyErr_Occurred()) return -1;
    long attempts = attempts_of(delivery, places), earlier = 0;
    PyObject *in_whole = NULL; /* NULL: the default, None */
    if (whole != NULL) {
        const struct places *outer = places_of(Py_TYPE(whole));
        earlier = attempts_of(whole, outer);
        if (doubt == Py_False && place(whole, outer, DOUBT) != NULL) doubt = place(whole, outer, DOUBT);
    }
    if (whole != NULL || place(delivery, places, PAYLOAD_START) != NULL) { /* or in a container of one: the first */
        in_whole = PyLong_FromSsize_t(index);
        if (in_whole == NULL) return -1;
    }
    PyObject *number = attempts < 0 || earlier < 0 ? NULL : PyLong_FromLong(attempts + earlier + 1);
    if (number == NULL) {
        Py_XDECREF(in_whole);
        return -1;
    }
    PyObject *values[] = {Py_NewRef(*field(result, &result_layout, RESULT_SHARD)),
                          Py_NewRef(*field(result, &result_layout, RESULT_NUMBER)), in_whole, number, Py_NewRef(doubt)};
    PyObject *outcome = new_struct(&put_layout, values, PUT_FIELDS);
    if (outcome == NULL) return -1;
    if (waiter != Py_None && PyList_Append(awaited, delivery) < 0) {
        Py_DECREF(outcome);
        return -1;
    }
    put_place(delivery, places, OUTCOME, outcome);
    Py_DECREF(outcome);
    PyObject **entry = settled->log[settled->count++];
    entry[0] = delivery;
    entry[1] = swap_place(delivery, places, DATA, empty);
    *size += charged;
    return 1;
}

/* as_meant(results: list, spans: list): twin of kinstream.produce.settle.as_meant. A span is a lane, its first index, and the
 * index after its last. */
PyObject *as_meant(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    static PyObject *name;
    if (count != 2 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1])) Py_RETURN_NONE;
    if (name == NULL && (name = PyUnicode_InternFromString("shard_id")) == NULL) return NULL;
    PyObject *results = arguments[0], *spans = arguments[1];
    Py_ssize_t next = 0;
    bool meant = true;
    for (Py_ssize_t i = 0; meant && i < PyList_GET_SIZE(spans); i++) {
        PyObject *span = PyList_GET_ITEM(spans, i);
        if (!PyTuple_CheckExact(span) || PyTuple_GET_SIZE(span) != 3) Py_RETURN_NONE;
        Py_ssize_t start = PyLong_AsSsize_t(PyTuple_GET_ITEM(span, 1)), stop = PyLong_AsSsize_t(PyTuple_GET_ITEM(span, 2));
        if (PyErr_Occurred()) return NULL;
        if (start != next || stop < start || stop > PyList_GET_SIZE(results)) Py_RETURN_NONE;
        PyObject *shard = PyObject_GetAttr(PyTuple_GET_ITEM(span, 0), name), *same = NULL;
        if (shard == NULL) return NULL;
        meant = start == stop || PyUnicode_CheckExact(shard);
        for (; meant && next < stop; next++) {
            PyObject *result = PyList_GET_ITEM(results, next);
            PyObject *found = Py_IS_TYPE(result, result_layout.type) ? *field(result, &result_layout, RESULT_SHARD) : NULL;
            if (found == same && found != NULL) continue; /* an answer has each id once */
            meant = found != NULL && PyUnicode_CheckExact(found) && PyUnicode_Compare(found, shard) == 0;
            same = found;
        }
        Py_DECREF(shard);
    }
    return PyBool_FromLong(meant && next == PyList_GET_SIZE(results));
}

/* mark_written(entries: list, results: list): twin of kinstream.produce.settle.mark_written. */
PyObject *mark_written(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "mark_written(entries: list, results: list)");
        return NULL;
    }
    if (PyList_GET_SIZE(arguments[0]) != PyList_GET_SIZE(arguments[1])) {
        PyErr_SetString(PyExc_ValueError, "mark_written: not as many results as entries");
        return NULL;
    }
    PyObject *entries = arguments[0], *results = arguments[1];
    PyObject *awaited = PyList_New(0), *empty = PyBytes_FromStringAndSize(NULL, 0), *emptied = PyList_New(0);
    struct settled settled = {.count = 0, .most = 0, .log = NULL};
    Py_ssize_t records = 0, size = 0;
    PyObject *marked = NULL;
    if (awaited == NULL || empty == NULL || emptied == NULL) goto failed;
    /* Memory first: the code below settles all of them, or none. */
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); i++) {
        look_ahead(entries, i);
        PyObject *entry = PyList_GET_ITEM(entries, i);
        const struct places *places = places_of(Py_TYPE(entry));
        PyObject *members = place(entry, places, MEMBERS);
        if (members == NULL) {
            settled.most++;
            continue;
        }
        if (!PyList_Check(members) || place(entry, places, DATA) == NULL) {
            PyErr_SetString(PyExc_TypeError, "mark_written: not an aggregate");
            goto failed;
        }
        settled.most += PyList_GET_SIZE(members);
        PyObject *none = PyList_New(0);
        int appended = none == NULL ? -1 : PyList_Append(emptied, none);
        Py_XDECREF(none);
        if (appended < 0) goto failed;
    }
    settled.log = PyMem_Malloc((size_t)(settled.most + 1) * sizeof *settled.log);
    if (settled.log == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); i++) {
        look_ahead(entries, i);
        PyObject *entry = PyList_GET_ITEM(entries, i), *result = PyList_GET_ITEM(results, i);
        PyObject *members = place(entry, places_of(Py_TYPE(entry)), MEMBERS);
        bool alone = members == NULL; /* a delivery by itself */
        for (Py_ssize_t j = 0; j < (alone ? 1 : PyList_GET_SIZE(members)); j++) {
            if (!alone) look_ahead(members, j);
            int now = settle_one(alone ? entry : PyList_GET_ITEM(members, j), result, alone ? NULL : entry, j, empty, &size,
                                 awaited, &settled);
            if (now < 0) goto failed;
            records += now;
        }
    }
    marked = Py_BuildValue("(nnO)", records, size, awaited);
    if (marked == NULL) goto failed;
    for (Py_ssize_t i = 0; i < settled.count; i++) {
        if (i + AHEAD < settled.count) PREFETCH(settled.log[i + AHEAD][1]);
        Py_DECREF(settled.log[i][1]);
    }
    for (Py_ssize_t i = 0, next = 0; i < PyList_GET_SIZE(entries); i++) {
        PyObject *entry = PyList_GET_ITEM(entries, i);
        const struct places *places = places_of(Py_TYPE(entry));
        if (place(entry, places, MEMBERS) == NULL) continue;
        put_place(entry, places, MEMBERS, PyList_GET_ITEM(emptied, next++));
        put_place(entry, places, DATA, empty);
    }
    goto done;
failed:
    for (Py_ssize_t i = 0; i < settled.count; i++) {
        PyObject *delivery = settled.log[i][0], *data = settled.log[i][1];
        const struct places *places = places_of(Py_TYPE(delivery));
        put_place(delivery, places, OUTCOME, Py_None);
        put_place(delivery, places, DATA, data);
        Py_DECREF(data);
    }
done:
    PyMem_Free(settled.log);
    Py_XDECREF(awaited);
    Py_XDECREF(empty);
    Py_XDECREF(emptied);
    return marked;
}

/* --- Results ------------------------------------------------------------------------------------------------------------- */

/* first_unsettled(deliveries: list, start): twin of kinstream.produce.delivery.first_unsettled. */
PyObject *first_unsettled(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "first_unsettled(deliveries: list, start: int)");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]);
    if (index < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "first_unsettled: start is negative");
        return NULL;
    }
    for (; index < PyList_GET_SIZE(arguments[0]); index++) {
        look_ahead(arguments[0], index);
        PyObject *delivery = PyList_GET_ITEM(arguments[0], index);
        PyObject *outcome = place(delivery, places_of(Py_TYPE(delivery)), OUTCOME);
        if (outcome == NULL) {
            PyErr_SetString(PyExc_TypeError, "first_unsettled: not a delivery");
            return NULL;
        }
        if (outcome == Py_None) return PyLong_FromSsize_t(index);
    }
    return PyLong_FromSsize_t(PyList_GET_SIZE(arguments[0]));
}

/* Asks for the sequence number of a result that is come to soon. */
static void look_at_number(PyObject *deliveries, Py_ssize_t i) {
    if (i + AHEAD / 2 >= PyList_GET_SIZE(deliveries)) return;
    PyObject *delivery = PyList_GET_ITEM(deliveries, i + AHEAD / 2);
    PyObject *outcome = place(delivery, places_of(Py_TYPE(delivery)), OUTCOME);
    if (outcome != NULL && Py_IS_TYPE(outcome, put_layout.type)) PREFETCH(*field(outcome, &put_layout, PUT_NUMBER));
}

/* values(deliveries: list): twin of kinstream.produce.delivery.values. */
PyObject *values(PyObject *Py_UNUSED(module), PyObject *deliveries) {
    if (!PyList_Check(deliveries)) {
        PyErr_SetString(PyExc_TypeError, "values(deliveries: list)");
        return NULL;
    }
    PyObject *found = PyList_New(0);
    if (found == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(deliveries); i++) {
        look_ahead(deliveries, i);
        look_into(deliveries, i, OUTCOME);
        look_into(deliveries, i, KEY); /* who asks for the results lets go of the deliveries, and so of their keys, */
        look_at_number(deliveries, i); /* and in the end of the results */
        PyObject *delivery = Py_NewRef(PyList_GET_ITEM(deliveries, i));
        PyObject *outcome = place(delivery, places_of(Py_TYPE(delivery)), OUTCOME);
        /* A failure, or something unusual: the delivery knows. */
        bool written = outcome != NULL && Py_IS_TYPE(outcome, put_layout.type);
        PyObject *value = written ? Py_NewRef(outcome) : PyObject_CallMethod(delivery, "value", NULL);
        Py_DECREF(delivery);
        int appended = value == NULL ? -1 : PyList_Append(found, value);
        Py_XDECREF(value);
        if (appended < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return found;
}
