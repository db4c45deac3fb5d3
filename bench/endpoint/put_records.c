/* Answers PutRecords as the service does: each record has gone to the shard whose range holds its hash key.
 *
 * The shards divide the hash keys evenly: shard i of n has those from ceil(i * 2^128 / n) on, so the shard of a hash key h is
 * floor(h * n / 2^128). The hash key is the explicit one, or the MD5 of the partition key (API reference, PutRecords).
 * Requests are read by their shape alone: what a client of the benchmark sends has no escapes in its strings.
 */
#define _GNU_SOURCE
#include "endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;

struct span {
    const unsigned char *at;
    size_t size;
};

struct results {
    char *bytes;
    size_t size, room;
    unsigned shards, count;
    int cbor;
};

/* MD5 (RFC 1321) */

static const uint32_t SINES[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1,
    0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453,
    0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942,
    0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05,
    0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d,
    0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
static const unsigned char TURNS[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

static void md5_block(uint32_t state[4], const unsigned char *block) {
    uint32_t word[16], a = state[0], b = state[1], c = state[2], d = state[3];
    memcpy(word, block, 64); /* little-endian machines only, as all that this runs on are */
    for (unsigned i = 0; i < 64; i++) {
        uint32_t mixed;
        unsigned which;
        if (i < 16) mixed = (b & c) | (~b & d), which = i;
        else if (i < 32) mixed = (d & b) | (~d & c), which = (5 * i + 1) % 16;
        else if (i < 48) mixed = b ^ c ^ d, which = (3 * i + 5) % 16;
        else mixed = c ^ (b | ~d), which = 7 * i % 16;
        uint32_t sum = a + mixed + SINES[i] + word[which], turn = TURNS[i / 16][i % 4];
        a = d, d = c, c = b;
        b += (sum << turn) | (sum >> (32 - turn));
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static u128 md5(struct span text) {
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    size_t done = 0;
    for (; text.size - done >= 64; done += 64) md5_block(state, text.at + done);
    unsigned char last[128] = {0};
    size_t rest = text.size - done, size = rest < 56 ? 64 : 128;
    memcpy(last, text.at + done, rest);
    last[rest] = 0x80;
    uint64_t bits = 8 * (uint64_t)text.size;
    memcpy(last + size - 8, &bits, 8);
    for (size_t i = 0; i < size; i += 64) md5_block(state, last + i);
    u128 number = 0;
    for (int i = 0; i < 4; i++) number = number << 32 | __builtin_bswap32(state[i]);
    return number;
}

/* Which shard, and the result */

static unsigned shard_of(struct span key, struct span hash_key, unsigned shards) {
    u128 hash = 0;
    if (hash_key.at)
        for (size_t i = 0; i < hash_key.size; i++) hash = 10 * hash + (u128)(hash_key.at[i] - '0');
    else
        hash = md5(key);
    u128 low = (u128)(uint64_t)hash * shards, high = (u128)(uint64_t)(hash >> 64) * shards;
    return (unsigned)((high + (low >> 64)) >> 64);
}

static void write_digits(char *end, unsigned long long number, int digits) {
    while (digits--) *--end = (char)('0' + number % 10), number /= 10;
}

static void add_result(struct results *r, struct span key, struct span hash_key) {
    static unsigned long long written;
    static const char JSON[] = "{\"SequenceNumber\":\"49671532811004187563129803617842091563280000000000000000\",\"ShardId\":\"shardId-000000000000\"},";
    static const char CBOR[] = "\xa2\x6eSequenceNumber\x78\x38" "49671532811004187563129803617842091563280000000000000000"
                               "\x67ShardId\x74shardId-000000000000";
    const char *model = r->cbor ? CBOR : JSON;
    size_t size = r->cbor ? sizeof CBOR - 1 : sizeof JSON - 1;
    if (r->room - r->size < size + 1) {
        r->room = 2 * r->room + size;
        r->bytes = realloc(r->bytes, r->room);
        if (!r->bytes) die("realloc");
    }
    char *at = r->bytes + r->size;
    memcpy(at, model, size);
    char *shard_end = at + size - (r->cbor ? 0 : 3);
    char *number_end = shard_end - (r->cbor ? 12 + 8 + 1 + 8 : 12 + 8 + 13);
    write_digits(shard_end, shard_of(key, hash_key, r->shards), 12);
    write_digits(number_end, ++written, 16);
    r->size += size;
    r->count++;
}

/* Reading the request */

static int is(struct span text, const char *word) {
    return text.size == strlen(word) && memcmp(text.at, word, text.size) == 0;
}

static int read_json(struct results *r, const unsigned char *at, const unsigned char *end) {
    struct span name = {0}, key = {0}, hash_key = {0};
    int depth = 0, in_value = 0;
    for (; at < end; at++) {
        if (*at == '"') {
            const unsigned char *closing = memchr(at + 1, '"', (size_t)(end - at - 1));
            if (!closing) return -1;
            struct span text = {at + 1, (size_t)(closing - at - 1)};
            if (!in_value) name = text;
            else if (is(name, "PartitionKey")) key = text;
            else if (is(name, "ExplicitHashKey")) hash_key = text;
            at = closing;
        } else if (*at == ':') {
            in_value = 1;
        } else if (*at == ',') {
            in_value = 0;
        } else if (*at == '{') {
            depth++, in_value = 0;
        } else if (*at == '}') {
            if (--depth == 1) {
                add_result(r, key, hash_key);
                key.at = hash_key.at = NULL;
            }
        }
    }
    return depth;
}

/* Reads one CBOR value (RFC 8949) and returns what follows it, or NULL. `text`: where a text or a byte string goes. */
static const unsigned char *read_cbor(struct results *r, const unsigned char *at, const unsigned char *end, int depth, struct span *text) {
    if (at >= end || depth > 4) return NULL;
    unsigned major = *at >> 5, low = *at & 31;
    at++;
    uint64_t size = low;
    if (low >= 24 && low < 28) {
        size_t width = (size_t)1 << (low - 24);
        if ((size_t)(end - at) < width) return NULL;
        for (size = 0; width; width--) size = size << 8 | *at++;
    } else if (low == 31) {
        size = UINT64_MAX; /* until the break */
    }
    if (major == 2 || major == 3) {
        if (size > (size_t)(end - at)) return NULL;
        if (text) *text = (struct span){at, (size_t)size};
        return at + size;
    }
    if (major == 6) return read_cbor(r, at, end, depth, text);
    if (major != 4 && major != 5) return at;
    struct span name, value, key = {0}, hash_key = {0};
    for (uint64_t i = 0; i < size; i++) {
        if (at < end && *at == 0xff && size == UINT64_MAX) {
            at++;
            break;
        }
        name = value = (struct span){0};
        if (major == 5 && !(at = read_cbor(r, at, end, depth + 1, &name))) return NULL;
        if (!(at = read_cbor(r, at, end, depth + 1, &value))) return NULL;
        if (is(name, "PartitionKey")) key = value;
        if (is(name, "ExplicitHashKey")) hash_key = value;
    }
    if (major == 5 && depth == 2) add_result(r, key, hash_key);
    return at;
}

char *put_records(const struct answer *answer, const unsigned char *body, size_t size, size_t *answer_size) {
    static const char JSON_FIRST[] = "{\"FailedRecordCount\":0,\"EncryptionType\":\"NONE\",\"Records\":[";
    static const char CBOR_FIRST[] = "\xa3\x71" "FailedRecordCount\x00\x6e" "EncryptionType\x64" "NONE\x67" "Records\x99\0";
    struct results r = {.cbor = answer->format[0] == 'c', .shards = answer->shards, .room = 1 << 16};
    enum { BEFORE = 512 };
    if (!(r.bytes = malloc(r.room))) die("malloc");
    size_t first = r.cbor ? sizeof CBOR_FIRST : sizeof JSON_FIRST - 1;
    memcpy(r.bytes + BEFORE, r.cbor ? CBOR_FIRST : JSON_FIRST, first);
    r.size = BEFORE + first;
    int bad = r.cbor ? read_cbor(&r, body, body + size, 0, NULL) != body + size : read_json(&r, body, body + size) != 0;
    if (bad || !r.count || r.count > 500) {
        free(r.bytes);
        return NULL;
    }
    if (r.cbor) {
        r.bytes[BEFORE + first - 2] = (char)(r.count >> 8); /* how many results the array has */
        r.bytes[BEFORE + first - 1] = (char)r.count;
    } else {
        memcpy(r.bytes + r.size - 1, "]}", 2); /* in the place of the last comma */
        r.size++;
    }
    char head[BEFORE];
    size_t head_size = write_head(head, BEFORE, answer->format, r.size - BEFORE);
    memmove(r.bytes + head_size, r.bytes + BEFORE, r.size - BEFORE);
    memcpy(r.bytes, head, head_size);
    *answer_size = head_size + r.size - BEFORE;
    return r.bytes;
}
