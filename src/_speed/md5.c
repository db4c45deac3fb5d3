/* MD5 (RFC 1321): one message of any length, or eight side by side. Kinesis hashes partition keys with it, and the KPL
 * its aggregates. */
#include "speed.h"

/* The functions of the four rounds. Each step waits for the x of the step before, so x comes as late as it can: G, whose two
 * halves have no bit in common, adds them. */
#define F(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define G(x, y, z) (((y) & ~(z)) + ((x) & (z)))
#define H(x, y, z) ((x) ^ ((y) ^ (z)))
#define I(x, y, z) ((y) ^ ((x) | ~(z)))

#define STEP(f, a, b, c, d, word, shift, sine)        \
    (a) += f((b), (c), (d)) + (word) + (uint32_t)sine; \
    (a) = ((a) << shift | (a) >> (32 - shift)) + (b);

/* Four steps, each for another of the four words; then a b c d are again where they were. */
#define FOUR(f, w0, w1, w2, w3, s0, s1, s2, s3, t0, t1, t2, t3) \
    STEP(f, a, b, c, d, w[w0], s0, t0)                          \
    STEP(f, d, a, b, c, w[w1], s1, t1)                          \
    STEP(f, c, d, a, b, w[w2], s2, t2)                          \
    STEP(f, b, c, d, a, w[w3], s3, t3)

/* The sixty-four steps over w[0..15], for one number or for eight at once. The constants are 2**32 * abs(sin(1..64)). */
#define ALL_STEPS                                                                                     \
    FOUR(F, 0, 1, 2, 3, 7, 12, 17, 22, 0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee)               \
    FOUR(F, 4, 5, 6, 7, 7, 12, 17, 22, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501)               \
    FOUR(F, 8, 9, 10, 11, 7, 12, 17, 22, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be)             \
    FOUR(F, 12, 13, 14, 15, 7, 12, 17, 22, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821)           \
    FOUR(G, 1, 6, 11, 0, 5, 9, 14, 20, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa)               \
    FOUR(G, 5, 10, 15, 4, 5, 9, 14, 20, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8)              \
    FOUR(G, 9, 14, 3, 8, 5, 9, 14, 20, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed)               \
    FOUR(G, 13, 2, 7, 12, 5, 9, 14, 20, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a)              \
    FOUR(H, 5, 8, 11, 14, 4, 11, 16, 23, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c)             \
    FOUR(H, 1, 4, 7, 10, 4, 11, 16, 23, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70)              \
    FOUR(H, 13, 0, 3, 6, 4, 11, 16, 23, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05)              \
    FOUR(H, 9, 12, 15, 2, 4, 11, 16, 23, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665)             \
    FOUR(I, 0, 7, 14, 5, 6, 10, 15, 21, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039)              \
    FOUR(I, 12, 3, 10, 1, 6, 10, 15, 21, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1)             \
    FOUR(I, 8, 15, 6, 13, 6, 10, 15, 21, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1)             \
    FOUR(I, 4, 11, 2, 9, 6, 10, 15, 21, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391)

static const uint32_t BEGIN[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};

static uint32_t load(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store(unsigned char *at, uint32_t word) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(word >> 8 * i);
}

static void add_block(uint32_t state[4], const unsigned char *block) {
    uint32_t w[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (int i = 0; i < 16; i++) w[i] = load(block + 4 * i);
    ALL_STEPS
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

/* Fills the last one or two blocks of a message: up to 63 bytes that are left of `whole`, a one bit, zeroes, the length in bits.
 * Returns their number. */
static int fill_tail(unsigned char tail[128], const char *left, size_t size, uint64_t whole) {
    int blocks = size <= SHORT_KEY ? 1 : 2;
    memcpy(tail, left, size);
    tail[size] = 0x80;
    memset(tail + size + 1, 0, (size_t)blocks * 64 - 9 - size);
    for (int i = 0; i < 8; i++) tail[blocks * 64 - 8 + i] = (unsigned char)(whole * 8 >> 8 * i);
    return blocks;
}

void md5(const char *message, Py_ssize_t size, unsigned char digest[16]) {
    uint32_t state[4];
    unsigned char tail[128];
    Py_ssize_t left = size;
    memcpy(state, BEGIN, sizeof state);
    for (; left >= 64; left -= 64, message += 64) add_block(state, (const unsigned char *)message);
    int blocks = fill_tail(tail, message, (size_t)left, (uint64_t)size);
    for (int i = 0; i < blocks; i++) add_block(state, tail + 64 * i);
    for (int i = 0; i < 4; i++) store(digest + 4 * i, state[i]);
}

/* --- Eight at once --------------------------------------------------------------------------------------------------------- */

#ifdef HAVE_AVX2
#include <immintrin.h>

typedef uint32_t eight __attribute__((vector_size(32)));

enum { LANES = 8 };

/* Loads eight words from each of eight places: w[i] has word i of each. */
__attribute__((target("avx2"))) static inline void load_words(eight w[8], const unsigned char *const at[LANES], size_t offset) {
    __m256i rows[8], pairs[8], fours[8];
    for (int i = 0; i < 8; i++) rows[i] = _mm256_loadu_si256((const __m256i *)(at[i] + offset));
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        w[i] = (eight)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        w[i + 4] = (eight)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

/* Adds `count` blocks to eight states, and moves each place by its step after each block. */
__attribute__((target("avx2"))) static void add_eight_blocks(eight state[4], const unsigned char *at[LANES],
                                                             const ptrdiff_t steps[LANES], Py_ssize_t count) {
    for (; count > 0; count--) {
        eight w[16], a = state[0], b = state[1], c = state[2], d = state[3];
        load_words(w, at, 0);
        load_words(w + 8, at, 32);
        for (int i = 0; i < LANES; i++) at[i] += steps[i];
        ALL_STEPS
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
    }
}

/* Messages that are hashed in eight lanes. A lane takes the next message when it has finished one. */
struct lanes {
    const char *const *messages;
    const Py_ssize_t *sizes;
    unsigned char (*digests)[16];
    Py_ssize_t count, next;
    eight state[4];
    const unsigned char *at[LANES];
    ptrdiff_t steps[LANES]; /* 0: the lane is idle, and hashes its tail for nothing */
    struct lane {
        Py_ssize_t message;
        Py_ssize_t blocks; /* left of this part of the message */
        int tail_blocks;   /* left after this part */
        unsigned char tail[128];
    } lane[LANES];
};

__attribute__((target("avx2"))) static void store_digest(const struct lanes *all, int i) {
    for (int j = 0; j < 4; j++) store(all->digests[all->lane[i].message] + 4 * j, all->state[j][i]);
}

/* Moves a lane to the tail of its message, or to the next message. Returns false if there is none. */
__attribute__((target("avx2"))) static bool begin_part(struct lanes *all, int i) {
    struct lane *lane = &all->lane[i];
    if (lane->tail_blocks > 0) {
        all->at[i] = lane->tail;
        lane->blocks = lane->tail_blocks;
        lane->tail_blocks = 0;
        return true;
    }
    if (all->steps[i] != 0) store_digest(all, i);
    if (all->next == all->count) {
        all->at[i] = lane->tail;
        all->steps[i] = 0;
        return false;
    }
    lane->message = all->next++;
    const char *message = all->messages[lane->message];
    Py_ssize_t size = all->sizes[lane->message], whole = size & ~(Py_ssize_t)63;
    all->at[i] = (const unsigned char *)message;
    all->steps[i] = 64;
    for (int j = 0; j < 4; j++) all->state[j][i] = BEGIN[j];
    lane->blocks = whole / 64;
    lane->tail_blocks = fill_tail(lane->tail, message + whole, (size_t)(size - whole), (uint64_t)size);
    return lane->blocks > 0 || begin_part(all, i);
}

/* Hashes the rest of a lane's message without the wide registers. */
__attribute__((target("avx2"))) static void finish_alone(struct lanes *all, int i) {
    struct lane *lane = &all->lane[i];
    uint32_t state[4];
    for (int j = 0; j < 4; j++) state[j] = all->state[j][i];
    for (; lane->blocks > 0; lane->blocks--, all->at[i] += 64) add_block(state, all->at[i]);
    for (int j = 0; j < lane->tail_blocks; j++) add_block(state, lane->tail + 64 * j);
    for (int j = 0; j < 4; j++) all->state[j][i] = state[j];
    store_digest(all, i);
}

__attribute__((target("avx2"))) static void md5_in_lanes(struct lanes *all) {
    for (int i = 0; i < LANES; i++) begin_part(all, i);
    for (;;) {
        Py_ssize_t blocks = PY_SSIZE_T_MAX;
        int busy = 0, last = 0;
        for (int i = 0; i < LANES; i++) {
            if (all->steps[i] == 0) continue;
            busy++;
            last = i;
            if (all->lane[i].blocks < blocks) blocks = all->lane[i].blocks;
        }
        if (busy == 0) return;
        if (busy == 1) { /* eight at once take longer than one */
            finish_alone(all, last);
            return;
        }
        add_eight_blocks(all->state, all->at, all->steps, blocks);
        for (int i = 0; i < LANES; i++)
            if (all->steps[i] != 0 && (all->lane[i].blocks -= blocks) == 0) begin_part(all, i);
    }
}
#endif

/* Hashes `count` messages of any length. */
void md5_of_many(const char *const *messages, const Py_ssize_t *sizes, Py_ssize_t count, unsigned char (*digests)[16]) {
#ifdef HAVE_AVX2
    if (use_avx2 && count > 1) {
        struct lanes all = {.messages = messages, .sizes = sizes, .digests = digests, .count = count};
        md5_in_lanes(&all);
        return;
    }
#endif
    for (Py_ssize_t i = 0; i < count; i++) md5(messages[i], sizes[i], digests[i]);
}

/* Hashes `count` keys, at most eight, of SHORT_KEY bytes at most. */
void md5_of_short_keys(const char *const *keys, const Py_ssize_t *sizes, int count, unsigned char (*digests)[16]) {
#ifdef HAVE_AVX2
    if (use_avx2 && count > 1) {
        unsigned char blocks[LANES][128];
        const unsigned char *at[LANES];
        static const ptrdiff_t steps[LANES];
        eight state[4];
        for (int i = 0; i < LANES; i++) {
            int lane = i < count ? i : 0;
            fill_tail(blocks[i], keys[lane], (size_t)sizes[lane], (uint64_t)sizes[lane]);
            at[i] = blocks[i];
        }
        for (int i = 0; i < 4; i++)
            for (int lane = 0; lane < LANES; lane++) state[i][lane] = BEGIN[i];
        add_eight_blocks(state, at, steps, 1);
        for (int i = 0; i < 4; i++)
            for (int lane = 0; lane < LANES; lane++) store(digests[lane] + 4 * i, state[i][lane]);
        return;
    }
#endif
    for (int i = 0; i < count; i++) md5(keys[i], sizes[i], digests[i]);
}
