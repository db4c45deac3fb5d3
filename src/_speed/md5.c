/* MD5 (RFC 1321): one message of any length, or eight short ones side by side. Kinesis hashes partition keys with it. */
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

/* Fills the last block of a message of up to 55 bytes that are left of `whole`: they, a one bit, zeroes, the length in bits. */
static void last_block(unsigned char block[64], const char *left, size_t size, uint64_t whole) {
    memcpy(block, left, size);
    block[size] = 0x80;
    memset(block + size + 1, 0, 55 - size);
    for (int i = 0; i < 8; i++) block[56 + i] = (unsigned char)(whole * 8 >> 8 * i);
}

void md5(const char *message, Py_ssize_t size, unsigned char digest[16]) {
    uint32_t state[4];
    unsigned char block[64];
    Py_ssize_t left = size;
    memcpy(state, BEGIN, sizeof state);
    for (; left >= 64; left -= 64, message += 64) add_block(state, (const unsigned char *)message);
    if (left >= SHORT_KEY + 1) {
        memset(block, 0, sizeof block);
        memcpy(block, message, (size_t)left);
        block[left] = 0x80;
        add_block(state, block);
        last_block(block, "", 0, (uint64_t)size);
        block[0] = 0; /* the one bit stands in the block before */
    } else {
        last_block(block, message, (size_t)left, (uint64_t)size);
    }
    add_block(state, block);
    for (int i = 0; i < 4; i++) store(digest + 4 * i, state[i]);
}

/* --- Eight at once --------------------------------------------------------------------------------------------------------- */

#ifdef HAVE_AVX2
typedef uint32_t eight __attribute__((vector_size(32)));

__attribute__((target("avx2"))) static void eight_blocks(unsigned char blocks[8][64], unsigned char (*digests)[16]) {
    eight w[16];
    for (int i = 0; i < 16; i++)
        for (int lane = 0; lane < 8; lane++) memcpy((char *)&w[i] + 4 * lane, blocks[lane] + 4 * i, 4);
    const eight none = {0};
    eight a = none + BEGIN[0], b = none + BEGIN[1], c = none + BEGIN[2], d = none + BEGIN[3];
    ALL_STEPS
    const eight words[4] = {a + BEGIN[0], b + BEGIN[1], c + BEGIN[2], d + BEGIN[3]};
    for (int i = 0; i < 4; i++)
        for (int lane = 0; lane < 8; lane++) memcpy(digests[lane] + 4 * i, (const char *)&words[i] + 4 * lane, 4);
}
#endif

/* Hashes `count` keys, at most eight, of SHORT_KEY bytes at most. */
void md5_of_short_keys(const char *const *keys, const Py_ssize_t *sizes, int count, unsigned char (*digests)[16]) {
#ifdef HAVE_AVX2
    if (use_avx2 && count > 1) {
        unsigned char blocks[8][64];
        for (int i = 0; i < 8; i++) {
            int lane = i < count ? i : 0;
            last_block(blocks[i], keys[lane], (size_t)sizes[lane], (uint64_t)sizes[lane]);
        }
        eight_blocks(blocks, digests);
        return;
    }
#endif
    for (int i = 0; i < count; i++) md5(keys[i], sizes[i], digests[i]);
}
