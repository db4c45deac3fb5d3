/* Base64 (RFC 4648, section 4): with padding, and strict when read. */
#include "speed.h"

#ifdef HAVE_AVX2
#include <immintrin.h>
#endif

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static unsigned char bits[256]; /* of each character; NO_BITS for what is no base64 */
enum { NO_BITS = 0xff };

/* --- Writing --------------------------------------------------------------------------------------------------------- */

#ifdef HAVE_AVX2
/* 24 bytes to 32 characters at a time. Returns how many bytes it took. */
__attribute__((target("avx2"))) static Py_ssize_t encode_avx2(char *to, const unsigned char *from, Py_ssize_t size) {
    /* In each half of the register, four groups of three bytes a b c become b a c b, so that the four 6-bit values of a group
     * lie inside two 16-bit words, where multiplications serve as shifts of a different width for each. */
    const __m256i spread = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, /* both halves alike */
                                            1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    /* What is to be added to a value to make its character, by the kind of the value: see `kind` below. */
    const char lower = 'a' - 26, numeral = '0' - 52, upper = 'A';
    const __m256i shifts = _mm256_setr_epi8(
        lower, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, '+' - 62, '/' - 63, upper, 0, 0,
        lower, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, numeral, '+' - 62, '/' - 63, upper, 0, 0);
    Py_ssize_t done = 0;
    for (; size - done >= 28; done += 24, to += 32) { /* 28: the second half is read four bytes further than it is used */
        __m256i bytes = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(from + done + 12)),
                                         _mm_loadu_si128((const __m128i *)(from + done)));
        bytes = _mm256_shuffle_epi8(bytes, spread);
        __m256i first_and_third = _mm256_mulhi_epu16(_mm256_and_si256(bytes, _mm256_set1_epi32(0x0fc0fc00)),
                                                     _mm256_set1_epi32(0x04000040));
        __m256i second_and_fourth = _mm256_mullo_epi16(_mm256_and_si256(bytes, _mm256_set1_epi32(0x003f03f0)),
                                                       _mm256_set1_epi32(0x01000010));
        __m256i value = _mm256_or_si256(first_and_third, second_and_fourth);
        /* Kinds: 0 for 26..51, 1..10 for the digits, 11 and 12 for the two signs, 13 for 0..25. */
        __m256i kind = _mm256_subs_epu8(value, _mm256_set1_epi8(51));
        __m256i is_upper = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), value);
        kind = _mm256_or_si256(kind, _mm256_and_si256(is_upper, _mm256_set1_epi8(13)));
        _mm256_storeu_si256((__m256i *)to, _mm256_add_epi8(value, _mm256_shuffle_epi8(shifts, kind)));
    }
    return done;
}
#endif

/* Writes base64_size(size) characters; returns where they end. */
char *base64_encode(char *to, const unsigned char *from, Py_ssize_t size) {
#ifdef HAVE_AVX2
    if (use_avx2 && size >= 28) {
        Py_ssize_t done = encode_avx2(to, from, size);
        to += done / 3 * 4;
        from += done;
        size -= done;
    }
#endif
    for (; size >= 3; size -= 3, from += 3) {
        uint32_t group = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
        *to++ = ALPHABET[group >> 18];
        *to++ = ALPHABET[group >> 12 & 63];
        *to++ = ALPHABET[group >> 6 & 63];
        *to++ = ALPHABET[group & 63];
    }
    if (size > 0) {
        uint32_t group = (uint32_t)from[0] << 16 | (size == 2 ? (uint32_t)from[1] << 8 : 0);
        *to++ = ALPHABET[group >> 18];
        *to++ = ALPHABET[group >> 12 & 63];
        *to++ = size == 2 ? ALPHABET[group >> 6 & 63] : '=';
        *to++ = '=';
    }
    return to;
}

/* --- Reading --------------------------------------------------------------------------------------------------------- */

#ifdef HAVE_AVX2
/* 32 characters to 24 bytes at a time, as far as all is base64. Returns how many characters it took. */
__attribute__((target("avx2"))) static Py_ssize_t decode_avx2(unsigned char *to, const char *from, Py_ssize_t size) {
    const __m256i gather = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, /* both halves alike */
                                            2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    /* By a character's upper half: its lowest and highest neighbours that are base64, and what to add for its value. The
     * slash shares its half with the plus, and has its own way. Above ASCII nothing is allowed: 127 is the lowest, 0 the highest. */
    const __m256i lowest = _mm256_setr_epi8(127, 127, '+', '0', 'A', 'P', 'a', 'p', 127, 127, 127, 127, 127, 127, 127, 127,
                                            127, 127, '+', '0', 'A', 'P', 'a', 'p', 127, 127, 127, 127, 127, 127, 127, 127);
    const __m256i highest = _mm256_setr_epi8(0, 0, '+', '9', 'O', 'Z', 'o', 'z', 0, 0, 0, 0, 0, 0, 0, 0, /* both alike */
                                             0, 0, '+', '9', 'O', 'Z', 'o', 'z', 0, 0, 0, 0, 0, 0, 0, 0);
    const char plus = 62 - '+', numeral = 52 - '0', upper = -'A', lower = 26 - 'a';
    const __m256i shifts =
        _mm256_setr_epi8(0, 0, plus, numeral, upper, upper, lower, lower, 0, 0, 0, 0, 0, 0, 0, 0, /* both alike */
                         0, 0, plus, numeral, upper, upper, lower, lower, 0, 0, 0, 0, 0, 0, 0, 0);
    Py_ssize_t done = 0;
    for (; size - done >= 48; done += 32, to += 24) { /* 48: 28 bytes are stored, of which the last four are room still */
        __m256i text = _mm256_loadu_si256((const __m256i *)(from + done));
        __m256i half = _mm256_and_si256(_mm256_srli_epi16(text, 4), _mm256_set1_epi8(0x0f));
        __m256i slash = _mm256_cmpeq_epi8(text, _mm256_set1_epi8('/'));
        __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_shuffle_epi8(lowest, half), text),
                                          _mm256_cmpgt_epi8(text, _mm256_shuffle_epi8(highest, half)));
        if (!_mm256_testc_si256(slash, outside)) break; /* something lies outside that is no slash */
        __m256i shift = _mm256_add_epi8(_mm256_shuffle_epi8(shifts, half),
                                        _mm256_and_si256(slash, _mm256_set1_epi8((63 - '/') - (62 - '+'))));
        __m256i value = _mm256_add_epi8(text, shift);
        /* Two values to 12 bits, two of those to 24; then the three bytes of each group, highest first. */
        __m256i pairs = _mm256_maddubs_epi16(value, _mm256_set1_epi32(0x01400140));
        __m256i groups = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00011000));
        groups = _mm256_shuffle_epi8(groups, gather);
        _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(groups));
        _mm_storeu_si128((__m128i *)(to + 12), _mm256_extracti128_si256(groups, 1));
    }
    return done;
}
#endif

/* Returns what `size` characters stand for; NULL with no exception where they are no base64, or not in its one right form. */
PyObject *base64_decode(const char *from, Py_ssize_t size) {
    if (size % 4 != 0) return NULL;
    int padding = size == 0 ? 0 : (from[size - 1] == '=') + (from[size - 1] == '=' && from[size - 2] == '=');
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size / 4 * 3 - padding);
    if (bytes == NULL) return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(bytes);
    const char *end = from + size - (padding ? 4 : 0); /* of the groups that are whole */
#ifdef HAVE_AVX2
    if (use_avx2 && size >= 48) {
        Py_ssize_t done = decode_avx2(to, from, size);
        from += done;
        to += done / 4 * 3;
    }
#endif
    for (; from < end; from += 4, to += 3) {
        unsigned a = bits[(unsigned char)from[0]], b = bits[(unsigned char)from[1]];
        unsigned c = bits[(unsigned char)from[2]], d = bits[(unsigned char)from[3]];
        if ((a | b | c | d) & 0xc0) goto no_base64;
        to[0] = (unsigned char)(a << 2 | b >> 4);
        to[1] = (unsigned char)(b << 4 | c >> 2);
        to[2] = (unsigned char)(c << 6 | d);
    }
    if (padding) {
        unsigned a = bits[(unsigned char)from[0]], b = bits[(unsigned char)from[1]];
        unsigned c = padding == 1 ? bits[(unsigned char)from[2]] : 0;
        unsigned left_over = padding == 1 ? c & 3 : b & 15; /* bits that stand for nothing must be 0 */
        if ((a | b | c) & 0xc0 || left_over) goto no_base64;
        to[0] = (unsigned char)(a << 2 | b >> 4);
        if (padding == 1) to[1] = (unsigned char)(b << 4 | c >> 2);
    }
    return bytes;
no_base64:
    Py_DECREF(bytes);
    return NULL;
}

void base64_prepare(void) {
    memset(bits, NO_BITS, sizeof bits);
    for (int i = 0; i < 64; i++) bits[(unsigned char)ALPHABET[i]] = (unsigned char)i;
}
