/* Memory of large request bodies, reused. Decision: docs/decisions/0019-request-body-memory.md.
 *
 * The C library maps a block of this size for each request and unmaps it afterwards, and each of its pages costs a page fault.
 * So the last bodies are kept here. A body whose only reference is the one in this list has no other user: it is neither in
 * flight nor awaiting a retry, and its memory takes the next body. All of this happens with the GIL held. */
#include "speed.h"

enum {
    BODY_MIN = 128 << 10,  /* M_MMAP_THRESHOLD of glibc and musl; smaller blocks come from the heap */
    BODIES_MAX = 16,       /* requests that a producer has in flight by default */
    BYTES_MAX = 24 << 20,  /* 16 batches of the default size in base64 */
};

static struct kept {
    PyObject *bytes;
    Py_ssize_t capacity; /* of its memory, of which it may use less */
} kept[BODIES_MAX];
static int kept_count, next_drop;
static Py_ssize_t kept_bytes;

static bool unused(const struct kept *body) { return Py_REFCNT(body->bytes) == 1; }

/* Removes a body from the list. Returns its reference. */
static PyObject *take(int i) {
    PyObject *bytes = kept[i].bytes;
    kept_bytes -= kept[i].capacity;
    kept[i] = kept[--kept_count];
    return bytes;
}

/* Removes the first unused body, or, if all are in use, one after another. */
static void drop_one(void) {
    int i = 0;
    while (i < kept_count && !unused(&kept[i])) i++;
    Py_DECREF(take(i < kept_count ? i : next_drop++ % kept_count));
}

static void keep(PyObject *bytes, Py_ssize_t capacity) {
    if (capacity > BYTES_MAX) return;
    while (kept_count == BODIES_MAX || kept_bytes + capacity > BYTES_MAX) drop_one();
    kept[kept_count++] = (struct kept){Py_NewRef(bytes), capacity};
    kept_bytes += capacity;
}

void forget_hash(PyObject *bytes) {
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* of the field, in its declaration only */
#endif
    ((PyBytesObject *)bytes)->ob_shash = -1;
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
}

/* Changes the length of bytes that nothing else refers to; their memory stays. */
static void set_length(PyObject *bytes, Py_ssize_t length) {
    Py_SET_SIZE(bytes, length);
    PyBytes_AS_STRING(bytes)[length] = 0;
    forget_hash(bytes);
}

int body_begin(struct writer *writer, Py_ssize_t expected) {
    if (expected < BODY_MIN) return writer_begin(writer, expected);
    int best = -1;
    for (int i = 0; i < kept_count; i++)
        if (unused(&kept[i]) && kept[i].capacity >= expected && (best < 0 || kept[i].capacity < kept[best].capacity)) best = i;
    if (best < 0) return writer_begin(writer, expected > BYTES_MAX ? expected : (expected | (BODY_MIN - 1)) + 1);
    Py_ssize_t capacity = kept[best].capacity;
    writer->bytes = take(best);
    set_length(writer->bytes, capacity);
    writer->at = PyBytes_AS_STRING(writer->bytes);
    writer->end = writer->at + capacity;
    return 0;
}

PyObject *body_finish(struct writer *writer) {
    Py_ssize_t capacity = PyBytes_GET_SIZE(writer->bytes);
    if (capacity < BODY_MIN || capacity > BYTES_MAX) return writer_finish(writer);
    PyObject *bytes = writer->bytes;
    set_length(bytes, writer->at - PyBytes_AS_STRING(bytes));
    writer->bytes = NULL;
    keep(bytes, capacity);
    return bytes;
}
