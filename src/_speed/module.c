/* The module: what is exported, where the fields of our structs lie, and the small parts that all files share. */
#include "speed.h"

#include <structmember.h> /* T_OBJECT_EX; in Python.h itself from 3.12 on, under another name */

struct layout record_layout, received_layout, result_layout, put_layout;
PyObject *encryption_none, *encryption_kms;
#ifdef HAVE_AVX2
bool use_avx2;
#endif

/* --- Structs --------------------------------------------------------------------------------------------------------- */

PyObject *new_struct(const struct layout *layout, PyObject **given, int count) {
    /* What object.__new__(cls) would call. All fields are NULL then, which a struct's own deallocation knows. */
    PyObject *made = layout->type->tp_alloc(layout->type, 0);
    for (int i = 0; i < count; i++) {
        PyObject *value = given[i] != NULL ? given[i] : Py_XNewRef(layout->defaults[i]);
        if (made != NULL)
            *field(made, layout, i) = value;
        else
            Py_XDECREF(value);
        given[i] = NULL;
    }
    if (made == NULL) return NULL;
    for (Py_ssize_t i = count; i < layout->count; i++) *field(made, layout, (int)i) = Py_NewRef(layout->defaults[i]);
    return made;
}

/* Where a class says that the field of this name lies; 0: nowhere, or not as a plain reference to an object. */
static Py_ssize_t offset_of(PyObject *class, PyObject *name) {
    Py_ssize_t offset = 0;
    PyObject *found = PyObject_GetAttr(class, name); /* of a class itself, a member descriptor gives itself */
    if (found == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        const PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX && member->offset >= (Py_ssize_t)sizeof(PyObject)) offset = member->offset;
    }
    Py_DECREF(found);
    return offset;
}

int learn_layout(struct layout *layout, PyObject *class, const char *const *names, int known) {
    int result = -1;
    struct layout learned = {.type = NULL};
    PyObject *fields = PyObject_GetAttrString(class, "__struct_fields__");
    PyObject *defaults = fields == NULL ? NULL : PyObject_GetAttrString(class, "__struct_defaults__");
    if (defaults == NULL || !PyType_Check(class) || !PyTuple_Check(fields) || !PyTuple_Check(defaults)) goto done;
    PyTypeObject *type = (PyTypeObject *)class;
    Py_ssize_t count = PyTuple_GET_SIZE(fields), without_default = count - PyTuple_GET_SIZE(defaults);
    /* A head and the fields, nothing else: no dict, no weak references, nothing done after construction. */
    if (count < known || count > FIELDS_MAX || without_default > known || type->tp_itemsize != 0 ||
        type->tp_basicsize != (Py_ssize_t)(sizeof(PyObject) + (size_t)count * sizeof(PyObject *)) ||
        PyObject_HasAttrString(class, "__post_init__"))
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(fields, i), *value = NULL;
        if (!PyUnicode_Check(name) || (i < known && PyUnicode_CompareWithASCIIString(name, names[i]) != 0)) goto done;
        learned.offsets[i] = offset_of(class, name);
        if (learned.offsets[i] == 0) goto done;
        if (i >= without_default) {
            value = PyTuple_GET_ITEM(defaults, i - without_default);
            if (strstr(Py_TYPE(value)->tp_name, "msgspec") != NULL) goto done; /* a default that is made anew each time */
        }
        learned.defaults[i] = value;
    }
    learned.count = count;
    learned.type = (PyTypeObject *)Py_NewRef(class);
    for (Py_ssize_t i = 0; i < count; i++) Py_XINCREF(learned.defaults[i]);
    *layout = learned; /* what it held before is one of a few classes, which are never given up */
    result = 0;
done:
    if (result < 0) PyErr_SetString(PyExc_ImportError, "kinstream._speed does not know the layout of a class of kinstream");
    Py_XDECREF(fields);
    Py_XDECREF(defaults);
    return result;
}

static const struct places NOWHERE;
const struct places *latest_places = &NOWHERE;

const struct places *find_places(PyTypeObject *type) {
    static const char *const NAMES[PLACES] = {"data", "partition_key", "explicit_hash_key", "size", "outcome", "waiter",
                                              "members", "attempts", "maybe_written", "payload_start"};
    static struct places known[8]; /* Record, Delivery, WrappedDelivery, Aggregate; a type stays, and so its places */
    static int count;
    for (int i = 0; i < count; i++)
        if (known[i].type == type) return latest_places = &known[i];
    if (count == 8 || !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return &NOWHERE;
    struct places *made = &known[count++];
    made->type = (PyTypeObject *)Py_NewRef(type);
    for (int i = 0; i < PLACES; i++) {
        PyObject *name = PyUnicode_FromString(NAMES[i]);
        if (name == NULL) PyErr_Clear();
        made->offsets[i] = name == NULL ? 0 : offset_of((PyObject *)type, name);
        Py_XDECREF(name);
    }
    return made;
}

/* --- Results --------------------------------------------------------------------------------------------------------- */

PyObject *not_mine(void) {
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeError)) return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

/* --- Bytes that are being written -------------------------------------------------------------------------------------- */

int writer_begin(struct writer *writer, Py_ssize_t expected) {
    writer->bytes = PyBytes_FromStringAndSize(NULL, expected);
    if (writer->bytes == NULL) return -1;
    writer->at = PyBytes_AS_STRING(writer->bytes);
    writer->end = writer->at + expected;
    return 0;
}

int writer_grow(struct writer *writer, Py_ssize_t room) {
    Py_ssize_t used = writer->at - PyBytes_AS_STRING(writer->bytes), size = PyBytes_GET_SIZE(writer->bytes);
    if (room > PY_SSIZE_T_MAX / 2 - size) {
        PyErr_NoMemory();
        return -1;
    }
    size += size / 2 + room;
    if (_PyBytes_Resize(&writer->bytes, size) < 0) return -1;
    writer->at = PyBytes_AS_STRING(writer->bytes) + used;
    writer->end = PyBytes_AS_STRING(writer->bytes) + size;
    return 0;
}

PyObject *writer_finish(struct writer *writer) {
    Py_ssize_t used = writer->at - PyBytes_AS_STRING(writer->bytes);
    PyObject *bytes = writer->bytes;
    writer->bytes = NULL;
    if (used != PyBytes_GET_SIZE(bytes)) _PyBytes_Resize(&bytes, used); /* leaves NULL and an exception where it fails */
    return bytes;
}

void writer_drop(struct writer *writer) { Py_CLEAR(writer->bytes); }

/* --- Texts ------------------------------------------------------------------------------------------------------------- */

static bool is_ascii(const char *at, Py_ssize_t size) {
    uint64_t all = 0, word;
    for (; size >= 8; size -= 8, at += 8) {
        memcpy(&word, at, 8);
        all |= word;
    }
    for (; size > 0; size--) all |= (unsigned char)*at++;
    return (all & 0x8080808080808080u) == 0;
}

/* A new str of UTF-8 bytes. Nearly all are ASCII, and those are copied as they are; Python keeps the shortest ones itself. */
PyObject *new_text(const char *at, Py_ssize_t size) {
    if (size < 2 || !is_ascii(at, size)) return PyUnicode_DecodeUTF8(at, size, NULL);
    PyObject *text = PyUnicode_New(size, 127);
    if (text != NULL) memcpy(PyUnicode_1BYTE_DATA(text), at, (size_t)size);
    return text;
}

/* The same, from among those of this answer where it is there. */
PyObject *recent_text(struct recent *recent, const char *at, Py_ssize_t size) {
    uint64_t ending = 0; /* ids of shards differ at their ends */
    memcpy(&ending, at + (size > 8 ? size - 8 : 0), (size_t)(size > 8 ? 8 : size));
    PyObject **place = &recent->texts[(ending * 0x9e3779b97f4a7c15u) >> 58];
    if (*place != NULL && PyUnicode_IS_COMPACT_ASCII(*place) && PyUnicode_GET_LENGTH(*place) == size &&
        memcmp(PyUnicode_1BYTE_DATA(*place), at, (size_t)size) == 0)
        return Py_NewRef(*place);
    PyObject *text = new_text(at, size);
    if (text != NULL) Py_XSETREF(*place, Py_NewRef(text));
    return text;
}

void recent_drop(struct recent *recent) {
    for (int i = 0; i < RECENT; i++) Py_CLEAR(recent->texts[i]);
}

const char *utf8_of(PyObject *text, Py_ssize_t *size, PyObject **holder) {
    *holder = NULL;
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *size = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    /* PyUnicode_AsUTF8AndSize would keep its bytes in the str for as long as it lives. */
    *holder = PyUnicode_AsUTF8String(text);
    if (*holder == NULL) return NULL;
    *size = PyBytes_GET_SIZE(*holder);
    return PyBytes_AS_STRING(*holder);
}

/* --- The plain record ---------------------------------------------------------------------------------------------------- */

/* plain_size(records, longest_key): twin of kinstream.validate.plain_size. */
static PyObject *plain_size(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "plain_size(records: list, longest_key: int)");
        return NULL;
    }
    PyObject *records = arguments[0];
    Py_ssize_t longest_key = PyLong_AsSsize_t(arguments[1]), size = 0;
    if (longest_key == -1 && PyErr_Occurred()) return NULL;
    const struct layout *layout = &record_layout;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        if (!Py_IS_TYPE(record, layout->type)) Py_RETURN_NONE;
        PyObject *data = *field(record, layout, RECORD_DATA), *key = *field(record, layout, RECORD_KEY);
        if (data == NULL || !PyBytes_CheckExact(data) || key == NULL || !PyUnicode_CheckExact(key) ||
            *field(record, layout, RECORD_HASH_KEY) != Py_None || *field(record, layout, RECORD_PREVIOUS) != Py_None ||
            *field(record, layout, RECORD_ENCODER) != Py_None)
            Py_RETURN_NONE;
        Py_ssize_t length = PyUnicode_GET_LENGTH(key);
        if (length == 0 || length > longest_key || is_no_key_text(key)) Py_RETURN_NONE;
        size += PyBytes_GET_SIZE(data) + length;
    }
    return PyLong_FromSsize_t(size);
}

/* count_failed(results): twin of kinstream.aws.kinesis.count_failed; -1 where a result lacks what it must have. */
static PyObject *count_failed(PyObject *Py_UNUSED(module), PyObject *results) {
    if (!PyList_Check(results)) {
        PyErr_SetString(PyExc_TypeError, "count_failed(results: list)");
        return NULL;
    }
    const struct layout *layout = &result_layout;
    long failed = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(results); i++) {
        PyObject *result = PyList_GET_ITEM(results, i);
        if (!Py_IS_TYPE(result, layout->type)) {
            PyErr_SetString(PyExc_TypeError, "count_failed: not a PutRecordResult");
            return NULL;
        }
        if (*field(result, layout, RESULT_CODE) != Py_None)
            failed++;
        else if (*field(result, layout, RESULT_NUMBER) == Py_None || *field(result, layout, RESULT_SHARD) == Py_None)
            return PyLong_FromLong(-1);
    }
    return PyLong_FromLong(failed);
}

/* --- The module ---------------------------------------------------------------------------------------------------------- */

static int prepare(PyObject *Py_UNUSED(module)) {
    /* The layouts, and the classes in them, are the process's: another interpreter would put its own classes there. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "kinstream._speed works in the main interpreter only");
        return -1;
    }
    static const char *const record_fields[] = {"data", "partition_key", "explicit_hash_key", "prev_sequence_number", "encoder"};
    static const char *const received_fields[] = {"data", "sequence_number", "arrival_time", "partition_key",
                                                  "encryption_type", "subsequence_number", "origin"};
    static const char *const result_fields[] = {"sequence_number", "shard_id", "error_code", "error_message"};
    static const char *const put_fields[] = {"shard_id", "sequence_number", "subsequence_number", "attempts", "maybe_duplicate"};
#ifdef HAVE_AVX2
    __builtin_cpu_init();
    use_avx2 = __builtin_cpu_supports("avx2");
#endif
    base64_prepare();
    static const struct {
        struct layout *layout;
        const char *name;
        const char *const *fields;
        int known;
    } CLASSES[] = {{&record_layout, "Record", record_fields, RECORD_FIELDS},
                   {&received_layout, "ReceivedRecord", received_fields, RECEIVED_FIELDS},
                   {&result_layout, "PutRecordResult", result_fields, RESULT_FIELDS},
                   {&put_layout, "PutResult", put_fields, PUT_FIELDS}};
    PyObject *records = PyImport_ImportModule("kinstream.record");
    if (records == NULL) return -1;
    int result = -1;
    PyObject *encryption = PyObject_GetAttrString(records, "EncryptionType");
    if (encryption == NULL) goto done;
    Py_XSETREF(encryption_none, PyObject_GetAttrString(encryption, "NONE"));
    Py_XSETREF(encryption_kms, PyObject_GetAttrString(encryption, "KMS"));
    if (encryption_none == NULL || encryption_kms == NULL) goto done;
    for (size_t i = 0; i < sizeof CLASSES / sizeof CLASSES[0]; i++) {
        PyObject *class = PyObject_GetAttrString(records, CLASSES[i].name);
        int learned = class == NULL ? -1 : learn_layout(CLASSES[i].layout, class, CLASSES[i].fields, CLASSES[i].known);
        Py_XDECREF(class);
        if (learned < 0) goto done;
    }
    result = 0;
done:
    Py_XDECREF(encryption);
    Py_DECREF(records);
    return result;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef functions[] = {
    {"plain_size", FAST(plain_size), "Return the size of records that can each go as they are, else None."},
    {"count_failed", count_failed, METH_O, "Return how many results are failures; -1: one lacks what it must have."},
    {"put_records_to_json", FAST(put_records_to_json), "Return the body of PutRecords in JSON, or None."},
    {"put_records_to_cbor", FAST(put_records_to_cbor), "Return the body of PutRecords in CBOR, or None."},
    {"results_from_json", results_from_json, METH_O, "Return the results in a JSON answer and what is left of it, or None."},
    {"results_from_cbor", results_from_cbor, METH_O, "Return the results in a CBOR answer and what is left of it, or None."},
    {"page_from_json", page_from_json, METH_O, "Return the records in a JSON answer and what is left of it, or None."},
    {"page_from_cbor", page_from_cbor, METH_O, "Return the records in a CBOR answer and what is left of it, or None."},
    {"find_shards", FAST(find_shards), "Return the index of the shard of each record, or None."},
    {"admit_pairs", FAST(admit_pairs), "Return deliveries for pairs of data and key, and their bytes in sum, or None."},
    {"distribute", FAST(distribute), "Put records at the ends of their shards' queues; return the indexes of these, or None."},
    {"admit_one", FAST(admit_one), "Return a delivery for data and key, or None."},
    {"total_size", FAST(total_size), "Return the bytes of a part of a list of deliveries in sum, or None."},
    {"as_meant", FAST(as_meant), "Return whether each result names the shard that was meant, or None."},
    {"fill", FAST(fill), "Return an aggregated record of as many records as fit, with a blank MD5, and their number, or None."},
    {"write_digests", write_digests, METH_O, "Write the MD5 of each aggregate that has a blank one."},
    {"mark_written", FAST(mark_written), "Tell each record that it is written; return how many, their bytes, who is awaited."},
    {"first_unsettled", FAST(first_unsettled), "Return the index of the first delivery that is not settled, or their number."},
    {"values", values, METH_O, "Return what became of each delivery."},
    {"set_origin", FAST(set_origin), "Give records their origin; return the indexes of what may be aggregates, or None."},
    {"intact_aggregates", FAST(intact_aggregates), "Return whether each of these records is an aggregate with a valid MD5."},
    {"user_records", FAST(user_records), "Return the user records in an aggregated record, or None."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)prepare},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* the layouts above are the process's */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "kinstream._speed", .m_doc = "The hot path, compiled; see kinstream.speed.",
    .m_size = 0, .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__speed(void);
PyMODINIT_FUNC PyInit__speed(void) { return PyModuleDef_Init(&definition); }
