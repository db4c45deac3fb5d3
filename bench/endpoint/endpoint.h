/* What the endpoint's parts share. */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifndef NO_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
typedef void SSL_CTX;
#endif

enum { HEAD_MAX = 16384, MARK_WITHIN = 1024, ANSWERS_MAX = 512, SCRATCH = 1 << 18 };

/* answers.c: what is answered, and how it is found */

enum kind {
    WHOLE,  /* bytes from a file, as they are */
    FILLED, /* bytes from a file with holes, filled with what the request names */
    PUT,    /* made for each PutRecords: a result for each record */
    STREAM  /* event-stream frames from a file */
};

struct hole {
    size_t at;
    enum { SHARD, PAGE, NEXT_PAGE } what;
};

struct answer {
    const char *operation, *format, *marks;
    enum kind kind;
    char *bytes; /* status line, headers and body; of a STREAM the body alone */
    size_t size;
    struct hole *holes;
    size_t hole_count;
    unsigned shards; /* of a PUT */
};

void load(char *argument);
/* Returns the first answer that fits, or NULL. `target` and `kind` are headers' values that end with "\r", or NULL for any. */
const struct answer *choose(const char *target, const char *kind, const char *body, size_t size);
/* Tells whether the whole body of such a request is wanted. */
int wants_body(const char *target, const char *kind);
/* Returns a copy of a FILLED answer with its holes filled, to be freed. */
char *filled(const struct answer *answer, const char *body, size_t size);
/* Puts the head of an answer of `size` bytes into `into` and returns the head's size. */
size_t write_head(char *into, size_t room, const char *format, size_t size);
/* Returns a STREAM as HTTP/1.1 has it: a chunk for each frame. Made once. */
const char *chunked(const struct answer *answer, size_t *size);

/* put_records.c */

/* Returns the whole answer to a PutRecords, to be freed; NULL where the body is none. */
char *put_records(const struct answer *answer, const unsigned char *body, size_t size, size_t *answer_size);

/* http2.c: what a connection is that speaks HTTP/2 */

struct http2;
struct http2 *http2_new(void);
void http2_free(struct http2 *h);
/* Takes bytes from the client. Returns -1 for what is no HTTP/2. */
int http2_take(struct http2 *h, const unsigned char *bytes, size_t size);
/* Says what to write next, nothing where all windows are used up; http2_given says how much of it was written. */
const unsigned char *http2_give(struct http2 *h, size_t *size);
void http2_given(struct http2 *h, size_t size);

_Noreturn void die(const char *what);

#endif
