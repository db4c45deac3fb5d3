/* Which shard takes a record: the hash key of its partition key, or its explicit one, among the shards' last hash keys. */
#include "speed.h"

/* Reads a hash key in decimal as 16 big-endian bytes: digits alone, no leading zero, below 2**128. */
bool read_hash_key(const char *text, Py_ssize_t size, unsigned char hash_key[16]) {
    if (size < 1 || size > 39 || (text[0] == '0' && size > 1)) return false;
    uint32_t limbs[4] = {0}; /* lowest first */
    while (size > 0) {
        uint32_t part = 0, factor = 1;
        for (int i = 0; i < 9 && size > 0; i++, text++, size--) { /* nine digits fit into 32 bits */
            if (*text < '0' || *text > '9') return false;
            part = part * 10 + (uint32_t)(*text - '0');
            factor *= 10;
        }
        uint64_t carry = part;
        for (int i = 0; i < 4; i++) {
            carry += (uint64_t)limbs[i] * factor;
            limbs[i] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) return false;
    }
    for (int i = 0; i < 16; i++) hash_key[15 - i] = (unsigned char)(limbs[i / 4] >> 8 * (i % 4));
    return true;
}

/* The first shard whose last hash key is not below this one, as bisect_left; -1 where the ends are not as they should be. */
static Py_ssize_t find(PyObject *ends, const unsigned char hash_key[16]) {
    Py_ssize_t low = 0, high = PyList_GET_SIZE(ends);
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        PyObject *end = PyList_GET_ITEM(ends, middle);
        if (!PyBytes_CheckExact(end) || PyBytes_GET_SIZE(end) != 16) return -1;
        if (memcmp(PyBytes_AS_STRING(end), hash_key, 16) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Up to eight keys that are hashed together, and where their shards' indexes go. */
struct keys {
    const char *texts[8];
    Py_ssize_t sizes[8], places[8];
    PyObject *holders[8];
    int count;
};

static int find_keys(struct keys *keys, PyObject *ends, Py_ssize_t *indexes) {
    unsigned char digests[8][16];
    int result = 0;
    md5_of_short_keys(keys->texts, keys->sizes, keys->count, digests);
    for (int i = 0; i < keys->count; i++) {
        Py_ssize_t found = find(ends, digests[i]);
        if (found < 0) result = -1;
        indexes[keys->places[i]] = found;
        Py_CLEAR(keys->holders[i]);
    }
    keys->count = 0;
    return result;
}

/* The index of each entry's shard; NULL as everywhere. To be given to PyMem_Free. */
static Py_ssize_t *find_all(PyObject *entries, PyObject *ends) {
    Py_ssize_t count = PyList_GET_SIZE(entries), *indexes = PyMem_New(Py_ssize_t, count > 0 ? count : 1);
    struct keys keys = {.count = 0};
    if (indexes == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        look_ahead(entries, i);
        look_into(entries, i, KEY);
        PyObject *entry = PyList_GET_ITEM(entries, i);
        const struct places *places = places_of(Py_TYPE(entry));
        PyObject *key = place(entry, places, KEY), *hash_key = place(entry, places, HASH_KEY);
        if (key == NULL || hash_key == NULL) goto other;
        unsigned char digest[16];
        if (hash_key == Py_None) {
            if (!PyUnicode_CheckExact(key)) goto other;
            PyObject *holder;
            Py_ssize_t size;
            const char *text = utf8_of(key, &size, &holder);
            if (text == NULL) goto other;
            if (size <= SHORT_KEY) {
                keys.texts[keys.count] = text;
                keys.sizes[keys.count] = size;
                keys.places[keys.count] = i;
                keys.holders[keys.count++] = holder;
                if (keys.count == 8 && find_keys(&keys, ends, indexes) < 0) goto other;
                continue;
            }
            md5(text, size, digest);
            Py_XDECREF(holder);
        } else if (!PyUnicode_CheckExact(hash_key) || !PyUnicode_IS_COMPACT_ASCII(hash_key) ||
                   !read_hash_key((const char *)PyUnicode_1BYTE_DATA(hash_key), PyUnicode_GET_LENGTH(hash_key), digest)) {
            goto other;
        }
        indexes[i] = find(ends, digest);
        if (indexes[i] < 0) goto other;
    }
    if (find_keys(&keys, ends, indexes) < 0) goto other;
    return indexes;
other:
    for (int i = 0; i < keys.count; i++) Py_XDECREF(keys.holders[i]);
    PyMem_Free(indexes);
    return NULL;
}

/* find_shards(entries: list, ends: list[bytes]): twin of kinstream.produce.route.find_shards. */
PyObject *find_shards(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1])) Py_RETURN_NONE;
    Py_ssize_t *indexes = find_all(arguments[0], arguments[1]);
    if (indexes == NULL) return not_mine();
    PyObject *found = PyList_New(PyList_GET_SIZE(arguments[0]));
    for (Py_ssize_t i = 0; found != NULL && i < PyList_GET_SIZE(found); i++) {
        PyObject *index = PyLong_FromSsize_t(indexes[i]);
        if (index == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, i, index);
    }
    PyMem_Free(indexes);
    return found;
}

/* Removes the items that were appended to a list, a few at a time: CPython needs no memory for that. */
static void cut_back(PyObject *list, Py_ssize_t size) {
    for (Py_ssize_t length; (length = PyList_GET_SIZE(list)) > size;)
        if (PyList_SetSlice(list, length - size > 8 ? length - 8 : size, length, NULL) < 0) break;
}

/* distribute(entries: list, ends: list[bytes], queues: list[list]): twin of kinstream.produce.route.distribute. */
PyObject *distribute(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 3 || !PyList_Check(arguments[0]) || !PyList_Check(arguments[1]) || !PyList_Check(arguments[2])) Py_RETURN_NONE;
    PyObject *entries = arguments[0], *queues = arguments[2], *touched = NULL;
    Py_ssize_t *indexes = find_all(entries, arguments[1]);
    if (indexes == NULL) return not_mine();
    Py_ssize_t shards = PyList_GET_SIZE(queues);
    Py_ssize_t *sizes = PyMem_New(Py_ssize_t, shards + 1); /* of the queues before; -1: nothing was appended */
    if (sizes == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < shards; i++) sizes[i] = -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entries); i++) /* first of all, so that all are put or none */
        if (indexes[i] >= shards || !PyList_CheckExact(PyList_GET_ITEM(queues, indexes[i]))) goto done;
    touched = PyList_New(0);
    for (Py_ssize_t i = 0; touched != NULL && i < PyList_GET_SIZE(entries); i++) {
        PyObject *queue = PyList_GET_ITEM(queues, indexes[i]);
        if (sizes[indexes[i]] < 0) {
            sizes[indexes[i]] = PyList_GET_SIZE(queue);
            PyObject *index = PyLong_FromSsize_t(indexes[i]);
            int appended = index == NULL ? -1 : PyList_Append(touched, index);
            Py_XDECREF(index);
            if (appended < 0) goto failed;
        }
        if (PyList_Append(queue, PyList_GET_ITEM(entries, i)) < 0) goto failed;
    }
    goto done;
failed: /* memory ran out */
    PyErr_Clear();
    for (Py_ssize_t i = 0; i < shards; i++)
        if (sizes[i] >= 0) cut_back(PyList_GET_ITEM(queues, i), sizes[i]);
    PyErr_NoMemory();
    Py_CLEAR(touched);
done:
    PyMem_Free(sizes);
    PyMem_Free(indexes);
    return touched == NULL ? not_mine() : touched;
}
