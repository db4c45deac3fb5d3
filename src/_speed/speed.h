/* kinstream._speed: the hot path, compiled. What each function must do, its pure Python twin says.
 *
 * One rule holds everywhere: what is not of the usual shape is not handled here. A function then returns None ("not mine"),
 * and its caller goes on in pure Python, which alone decides what is right, and what an error says.
 *
 * Inside, a function that fails returns NULL or -1. Where no exception is set it found something unusual; where one is set
 * it is either no UTF-8, which is unusual too, or memory ran out. `not_mine` turns the three into what Python sees.
 */
#ifndef KINSTREAM_SPEED_H
#define KINSTREAM_SPEED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#error "kinstream._speed reads objects without locks, so it is not for free-threaded builds: they run the pure package"
#endif

/* What the files share among themselves is nobody else's: names as short as these must not meet others in the process. */
#ifdef __GNUC__
#pragma GCC visibility push(hidden)
#endif

/* The AVX2 forms are chosen when the module is loaded, so one build runs on every x86-64. */
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
extern bool use_avx2;
#endif

/* --- Structs (module.c) -------------------------------------------------------------------------------------------- */

/* Our records are msgspec Structs: a head, then one pointer a field. Where the fields lie is asked of the class's own member
 * descriptors when the module is loaded; a class that is laid out in another way makes the import fail. */
enum { FIELDS_MAX = 16 };

struct layout {
    PyTypeObject *type;
    Py_ssize_t count;
    Py_ssize_t offsets[FIELDS_MAX];
    PyObject *defaults[FIELDS_MAX]; /* NULL: the field must be given */
};

/* The order in which the fields are known here; other fields may follow in the class if they have defaults. */
enum { RECORD_DATA, RECORD_KEY, RECORD_HASH_KEY, RECORD_PREVIOUS, RECORD_ENCODER, RECORD_FIELDS };
enum { RECEIVED_DATA, RECEIVED_NUMBER, RECEIVED_ARRIVAL, RECEIVED_KEY, RECEIVED_ENCRYPTION, RECEIVED_INDEX, RECEIVED_ORIGIN, RECEIVED_FIELDS };
enum { PUT_SHARD, PUT_NUMBER, PUT_INDEX, PUT_ATTEMPTS, PUT_DUPLICATE, PUT_FIELDS };
enum { RESULT_NUMBER, RESULT_SHARD, RESULT_CODE, RESULT_MESSAGE, RESULT_FIELDS };

extern struct layout record_layout, received_layout, result_layout, put_layout;
extern PyObject *encryption_none, *encryption_kms;

/* A field of a struct. What it holds is borrowed. */
static inline PyObject **field(PyObject *object, const struct layout *layout, int which) {
    return (PyObject **)((char *)object + layout->offsets[which]);
}

/* A new struct whose first fields are `values`, which it takes over even when it fails; NULL among them: the default. */
PyObject *new_struct(const struct layout *layout, PyObject **values, int count);

/* Learns a class's layout; `names` are its first fields. Fails with ImportError where it is another than we know. */
int learn_layout(struct layout *layout, PyObject *class, const char *const *names, int known);

/* What waits to be sent may be of several classes (Record, Delivery, WrappedDelivery, Aggregate); their attributes have the same names. */
enum place { DATA, KEY, HASH_KEY, SIZE, OUTCOME, WAITER, MEMBERS, ATTEMPTS, DOUBT, PAYLOAD_START, PLACES };

struct places {
    PyTypeObject *type;
    Py_ssize_t offsets[PLACES]; /* 0: the class has no such attribute */
};

extern const struct places *latest_places;
const struct places *find_places(PyTypeObject *type);

static inline const struct places *places_of(PyTypeObject *type) {
    return type == latest_places->type ? latest_places : find_places(type);
}

/* What stands there, borrowed; NULL where there is nothing. */
static inline PyObject *place(PyObject *object, const struct places *places, enum place which) {
    return places->offsets[which] == 0 ? NULL : *(PyObject **)((char *)object + places->offsets[which]);
}

/* What waited long has left the processor's caches, and fetching it costs more than all that is done with it. These ask for
 * what a loop over a list comes to in a while: an entry, and, nearer, what one of its attributes holds. */
enum { FAR_AHEAD = 32, AHEAD = 16 };

#ifdef __GNUC__
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define PREFETCH(at) ((void)(at))
#endif

static inline void look_ahead(PyObject *list, Py_ssize_t i) {
    if (i + FAR_AHEAD >= PyList_GET_SIZE(list)) return;
    const char *entry = (const char *)PyList_GET_ITEM(list, i + FAR_AHEAD);
    PREFETCH(entry);
    PREFETCH(entry + 64); /* a delivery lies in two lines of the cache, or in three */
    PREFETCH(entry + 80);
}

static inline void look_into(PyObject *list, Py_ssize_t i, enum place which) {
    if (i + AHEAD >= PyList_GET_SIZE(list)) return;
    PyObject *entry = PyList_GET_ITEM(list, i + AHEAD);
    PREFETCH(place(entry, places_of(Py_TYPE(entry)), which));
}

PyObject *not_mine(void);

/* The partition key of records that were put without one: kinstream.record.NO_KEY. */
#define NO_KEY "kinstream-no-key"
enum { NO_KEY_SIZE = sizeof NO_KEY - 1 };

static inline bool is_no_key(const char *text, Py_ssize_t size) {
    return size == NO_KEY_SIZE && memcmp(text, NO_KEY, NO_KEY_SIZE) == 0;
}

static inline bool is_no_key_text(PyObject *key) {
    return PyUnicode_GET_LENGTH(key) == NO_KEY_SIZE && PyUnicode_IS_COMPACT_ASCII(key) &&
           is_no_key((const char *)PyUnicode_1BYTE_DATA(key), NO_KEY_SIZE);
}

/* --- Bytes that are being written (module.c) ----------------------------------------------------------------------- */

struct writer {
    PyObject *bytes;
    char *at, *end;
};

int writer_begin(struct writer *writer, Py_ssize_t expected);
int writer_grow(struct writer *writer, Py_ssize_t room);
PyObject *writer_finish(struct writer *writer);
void writer_drop(struct writer *writer);

/* Makes sure that `room` bytes can be written at writer->at. */
static inline int writer_room(struct writer *writer, Py_ssize_t room) {
    return writer->end - writer->at >= room ? 0 : writer_grow(writer, room);
}

static inline void put_bytes(struct writer *writer, const char *bytes, Py_ssize_t size) {
    memcpy(writer->at, bytes, (size_t)size);
    writer->at += size;
}

#define PUT_LITERAL(writer, text) put_bytes((writer), (text), (Py_ssize_t)sizeof(text) - 1)

/* --- Request bodies (body.c) ------------------------------------------------------------------------------------------ */

/* As writer_begin and writer_finish, but a large body takes the memory of an earlier one. */
int body_begin(struct writer *writer, Py_ssize_t expected);
PyObject *body_finish(struct writer *writer);

/* Forgets the cached hash of bytes that change. Nothing else may refer to them. */
void forget_hash(PyObject *bytes);

/* --- Bytes that are being read ------------------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
};

static inline bool starts_with(const struct reader *reader, const char *text, Py_ssize_t size) {
    return reader->end - reader->at >= size && memcmp(reader->at, text, (size_t)size) == 0;
}

/* Moves past `text` where it stands next. */
static inline bool pass(struct reader *reader, const char *text, Py_ssize_t size) {
    if (!starts_with(reader, text, size)) return false;
    reader->at += size;
    return true;
}

#define PASS(reader, text) pass((reader), (text), (Py_ssize_t)sizeof(text) - 1)

/* --- Texts (module.c) ---------------------------------------------------------------------------------------------- */

/* Texts that come again and again in one answer (ids of shards, codes of errors) are made once. */
enum { RECENT = 64 };

struct recent {
    PyObject *texts[RECENT];
};

PyObject *recent_text(struct recent *recent, const char *at, Py_ssize_t size);
void recent_drop(struct recent *recent);
PyObject *new_text(const char *at, Py_ssize_t size);

/* The UTF-8 bytes of a str, without leaving a copy of them inside it. `*holder` is to be dropped after use; may be NULL. */
const char *utf8_of(PyObject *text, Py_ssize_t *size, PyObject **holder);

/* --- base64.c ------------------------------------------------------------------------------------------------------ */

void base64_prepare(void);
static inline Py_ssize_t base64_size(Py_ssize_t size) { return (size + 2) / 3 * 4; }
char *base64_encode(char *to, const unsigned char *from, Py_ssize_t size);
PyObject *base64_decode(const char *from, Py_ssize_t size);

/* --- md5.c ----------------------------------------------------------------------------------------------------------- */

enum { SHORT_KEY = 55 }; /* bytes that fit into one block of MD5 */

void md5(const char *message, Py_ssize_t size, unsigned char digest[16]);
void md5_of_many(const char *const *messages, const Py_ssize_t *sizes, Py_ssize_t count, unsigned char (*digests)[16]);
void md5_of_short_keys(const char *const *keys, const Py_ssize_t *sizes, int count, unsigned char (*digests)[16]);

/* --- route.c --------------------------------------------------------------------------------------------------------- */

bool read_hash_key(const char *text, Py_ssize_t size, unsigned char hash_key[16]);

/* --- What Python sees ------------------------------------------------------------------------ */

PyObject *put_records_to_json(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *put_records_to_cbor(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *results_from_json(PyObject *, PyObject *);
PyObject *results_from_cbor(PyObject *, PyObject *);
PyObject *page_from_json(PyObject *, PyObject *);
PyObject *page_from_cbor(PyObject *, PyObject *);
PyObject *find_shards(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *distribute(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *admit_pairs(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *admit_one(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *total_size(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *as_meant(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *fill(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *write_digests(PyObject *, PyObject *);
PyObject *mark_written(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *first_unsettled(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *values(PyObject *, PyObject *);
PyObject *set_origin(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *intact_aggregates(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *user_records(PyObject *, PyObject *const *, Py_ssize_t);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#endif
