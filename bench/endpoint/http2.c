/* As much of HTTP/2 (RFC 9113) as sends event streams: any request is taken for a SubscribeToShard, and answered with the
 * frames whose marks stand in its body, as fast as the client's windows and the socket allow. Request headers are not looked at.
 */
#define _GNU_SOURCE
#include "endpoint.h"

#include <stdlib.h>
#include <string.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1 };
enum { STREAMS = 64, FRAME_HEAD = 9, IN = 1 << 15, CONTROL = 1 << 13, DATA_MIN = 1 << 14, DATA_MAX = 1 << 18, OUT = 2 * DATA_MAX };

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static const unsigned char ANSWER_HEADERS[] = /* HPACK (RFC 7541) with no Huffman code and no dynamic table */
    "\x88"                                      /* :status 200 */
    "\x0f\x10\x22" "application/vnd.amazon.eventstream" /* content-type */
    "\x00\x10" "x-amzn-requestid\x24" "e4a1c7f2-9b7d-4c5e-8a35-1f0b6d2c9e17";

struct stream {
    uint32_t id; /* 0: free */
    int64_t window;
    char body[2 * MARK_WITHIN];
    size_t body_size;
    const char *next, *end; /* what is left of the answer's body; NULL: not asked yet */
};

struct http2 {
    unsigned char in[IN], out[OUT], control[CONTROL];
    size_t in_size, out_at, out_size, control_size;
    int greeted;
    int64_t window, initial_window, data_max; /* the last: what the client takes in one frame */
    struct stream streams[STREAMS];
    size_t turn;
};

struct http2 *http2_new(void) {
    struct http2 *h = calloc(1, sizeof *h);
    if (!h) die("calloc");
    h->window = h->initial_window = 65535;
    h->data_max = DATA_MIN;
    /* our settings: none but the defaults */
    static const unsigned char settings[FRAME_HEAD] = {0, 0, 0, SETTINGS};
    memcpy(h->control, settings, FRAME_HEAD);
    h->control_size = FRAME_HEAD;
    return h;
}

void http2_free(struct http2 *h) { free(h); }

static uint32_t number(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static size_t frame_head(unsigned char *at, size_t size, int type, int flags, uint32_t id) {
    const unsigned char head[FRAME_HEAD] = {(unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size,
                                            (unsigned char)type, (unsigned char)flags, (unsigned char)(id >> 24),
                                            (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id};
    memcpy(at, head, FRAME_HEAD);
    return FRAME_HEAD;
}

static int send_control(struct http2 *h, int type, int flags, uint32_t id, const void *payload, size_t size) {
    if (CONTROL - h->control_size < FRAME_HEAD + size) return -1;
    h->control_size += frame_head(h->control + h->control_size, size, type, flags, id);
    if (size) memcpy(h->control + h->control_size, payload, size);
    h->control_size += size;
    return 0;
}

static struct stream *stream_of(struct http2 *h, uint32_t id) {
    for (size_t i = 0; i < STREAMS; i++)
        if (h->streams[i].id == id) return &h->streams[i];
    return NULL;
}

static int begin_answer(struct http2 *h, struct stream *s) {
    const struct answer *answer = choose(NULL, NULL, s->body, s->body_size);
    if (!answer) return send_control(h, HEADERS, 4 | END_STREAM, s->id, "\x8c", 1); /* :status 400 */
    s->next = answer->bytes;
    s->end = answer->bytes + answer->size;
    return send_control(h, HEADERS, 4, s->id, ANSWER_HEADERS, sizeof ANSWER_HEADERS - 1);
}

static void change_settings(struct http2 *h, const unsigned char *payload, size_t size) {
    for (; size >= 6; payload += 6, size -= 6) {
        int64_t changed = number(payload + 2), by = changed - h->initial_window;
        if (payload[1] == 5) h->data_max = changed < DATA_MAX ? changed : DATA_MAX; /* SETTINGS_MAX_FRAME_SIZE */
        if (payload[1] != 4) continue;                                              /* SETTINGS_INITIAL_WINDOW_SIZE */
        h->initial_window = changed;
        for (size_t i = 0; i < STREAMS; i++) h->streams[i].window += by;
    }
}

static int take_frame(struct http2 *h, int type, int flags, uint32_t id, const unsigned char *payload, size_t size) {
    struct stream *s = id ? stream_of(h, id) : NULL;
    if (type == SETTINGS && !(flags & ACK)) {
        change_settings(h, payload, size);
        return send_control(h, SETTINGS, ACK, 0, NULL, 0);
    }
    if (type == PING && !(flags & ACK)) return send_control(h, PING, ACK, 0, payload, size);
    if (type == GOAWAY) return -1;
    if (type == WINDOW_UPDATE && size == 4) {
        int64_t *window = id ? (s ? &s->window : NULL) : &h->window;
        if (window) *window += number(payload) & 0x7fffffff;
    } else if (type == RST_STREAM && s) {
        s->id = 0;
    } else if (type == HEADERS && !s) {
        if (!(s = stream_of(h, 0))) return -1;
        *s = (struct stream){.id = id, .window = h->initial_window};
    } else if (type == DATA && s) {
        size_t room = sizeof s->body - s->body_size, taken = size < room ? size : room;
        memcpy(s->body + s->body_size, payload, taken);
        s->body_size += taken;
    }
    if ((type == HEADERS || type == DATA) && s && (flags & END_STREAM)) return begin_answer(h, s);
    return 0;
}

int http2_take(struct http2 *h, const unsigned char *bytes, size_t size) {
    while (size) {
        size_t room = IN - h->in_size, taken = size < room ? size : room, at = 0;
        memcpy(h->in + h->in_size, bytes, taken);
        h->in_size += taken, bytes += taken, size -= taken;
        if (!h->greeted) {
            if (h->in_size < sizeof PREFACE - 1) continue;
            if (memcmp(h->in, PREFACE, sizeof PREFACE - 1) != 0) return -1;
            h->greeted = 1;
            at = sizeof PREFACE - 1;
        }
        while (h->in_size - at >= FRAME_HEAD) {
            const unsigned char *head = h->in + at;
            size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
            if (length > IN - FRAME_HEAD) return -1;
            if (h->in_size - at < FRAME_HEAD + length) break;
            if (take_frame(h, head[3], head[4], number(head + 5) & 0x7fffffff, head + FRAME_HEAD, length) < 0) return -1;
            at += FRAME_HEAD + length;
        }
        h->in_size -= at;
        memmove(h->in, h->in + at, h->in_size);
    }
    return 0;
}

/* Puts one DATA frame of a stream into what is written next. Returns 0 where it has none to send. */
static int add_data(struct http2 *h, struct stream *s) {
    if (!s->id || !s->next) return 0;
    int64_t size = s->end - s->next;
    if (size > h->data_max) size = h->data_max;
    if (size > s->window) size = s->window;
    if (size > h->window) size = h->window;
    if (size <= 0 || OUT - h->out_size < (size_t)size + FRAME_HEAD) return 0;
    int last = s->next + size == s->end;
    h->out_size += frame_head(h->out + h->out_size, (size_t)size, DATA, last ? END_STREAM : 0, s->id);
    memcpy(h->out + h->out_size, s->next, (size_t)size);
    h->out_size += (size_t)size;
    s->next += size, s->window -= size, h->window -= size;
    if (last) s->id = 0;
    return 1;
}

const unsigned char *http2_give(struct http2 *h, size_t *size) {
    if (h->out_at == h->out_size) {
        memcpy(h->out, h->control, h->control_size);
        h->out_at = 0, h->out_size = h->control_size, h->control_size = 0;
        for (size_t idle = 0; idle < STREAMS; h->turn = (h->turn + 1) % STREAMS)
            idle = add_data(h, &h->streams[h->turn]) ? 0 : idle + 1;
    }
    *size = h->out_size - h->out_at;
    return h->out + h->out_at;
}

void http2_given(struct http2 *h, size_t size) { h->out_at += size; }
