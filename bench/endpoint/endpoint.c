/* Answers Kinesis requests with bytes that were made beforehand, so that a benchmark measures the client alone.
 *
 *     endpoint CERT KEY OPERATION:FORMAT:MARKS:FILE...
 *
 * Listens on three free ports of 127.0.0.1: plain, TLS, and TLS with HTTP/2 for those who ask for it (no TLS where CERT is
 * "-"), and prints the numbers on one line, 0 for none. A request is answered by the first FILE whose OPERATION ends
 * X-Amz-Target, whose FORMAT ("json" or "cbor") stands in Content-Type, and whose MARKS stand in the first or last bytes of the
 * body (no MARKS always do); answers.c says what FILE can be. HTTP/1.1 with keep-alive and Content-Length; no pipelining.
 * Signatures are not looked at. One thread, epoll; ends with its parent.
 */
#define _GNU_SOURCE
#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 64, BODY_MAX = 16 << 20 };

struct connection {
    int fd;
    SSL *ssl;                /* NULL: plain */
    struct http2 *http2;     /* NULL: HTTP/1.1 */
    char head[HEAD_MAX + 1]; /* the request's head and the beginning of its body */
    size_t head_size;
    int understood;          /* the head is read */
    char *body;              /* the whole body, where the answer depends on it */
    size_t body_size, body_left;
    char *owned;     /* an answer that was made for this request */
    const char *out; /* what is left to write, once the body is read */
    size_t out_left;
    uint32_t waits_for;
};

static int poller;
static char scratch[SCRATCH];

static const char NOT_KNOWN[] =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 35\r\n\r\n"
    "{\"__type\":\"UnknownOperationBench\"}\n";

void die(const char *what) {
    perror(what);
    exit(1);
}

static void wait_for(struct connection *c, uint32_t events) {
    if (c->waits_for == events) return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, c->waits_for ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    c->waits_for = events;
}

/* Both return the number of bytes moved, 0 where that must wait (and is waited for), -1 where the connection is over. */
#ifndef NO_TLS
static ssize_t tls_outcome(struct connection *c, int moved) {
    switch (SSL_get_error(c->ssl, moved)) {
    case SSL_ERROR_WANT_READ: wait_for(c, EPOLLIN); return 0;
    case SSL_ERROR_WANT_WRITE: wait_for(c, EPOLLOUT); return 0;
    default: ERR_clear_error(); return -1;
    }
}
#endif

static ssize_t take(struct connection *c, char *into, size_t size) {
#ifndef NO_TLS
    if (c->ssl) {
        int got = SSL_read(c->ssl, into, (int)size);
        return got > 0 ? got : tls_outcome(c, got);
    }
#endif
    /* A plain body is dropped within the kernel (tcp(7), MSG_TRUNC). */
    ssize_t got = recv(c->fd, into, size, into == scratch ? MSG_TRUNC : 0);
    if (got > 0) return got;
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) return -1;
    wait_for(c, EPOLLIN);
    return 0;
}

static ssize_t give(struct connection *c) {
#ifndef NO_TLS
    if (c->ssl) {
        int put = SSL_write(c->ssl, c->out, (int)c->out_left);
        return put > 0 ? put : tls_outcome(c, put);
    }
#endif
    ssize_t put = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
    if (put > 0) return put;
    if (errno != EAGAIN && errno != EINTR) return -1;
    wait_for(c, EPOLLOUT);
    return 0;
}

/* Returns the value of a header, which ends with "\r", or NULL. */
static const char *header(const char *head, const char *name) {
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, size) == 0 && line[2 + size] == ':') {
            line += 3 + size;
            return line + strspn(line, " ");
        }
    return NULL;
}

/* Makes ready what is written next. */
static void answer(struct connection *c, const char *target, const char *kind, const char *body, size_t size) {
    const struct answer *a = choose(target, kind, body, size);
    c->out = NOT_KNOWN, c->out_left = sizeof NOT_KNOWN - 1;
    if (!a) return;
    if (a->kind == PUT) {
        size_t made_size;
        char *made = put_records(a, (const unsigned char *)body, size, &made_size);
        if (!made) return;
        c->out = c->owned = made, c->out_left = made_size;
    } else if (a->kind == STREAM) {
        c->out = chunked(a, &c->out_left);
    } else {
        c->out = a->kind == FILLED ? (c->owned = filled(a, body, size)) : a->bytes;
        c->out_left = a->size;
    }
}

/* Reads the head, once it is here. Returns -1 for what is no request. */
static int understand(struct connection *c) {
    c->head[c->head_size] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return c->head_size == HEAD_MAX ? -1 : 0;
    end[2] = 0; /* the head's own end; the body stays as it is */
    const char *length = header(c->head, "content-length"), *target = header(c->head, "x-amz-target"),
               *kind = header(c->head, "content-type");
    end[2] = '\r';
    if (!length || !target || !kind) return -1;
    const char *body = end + 4;
    size_t size = strtoul(length, NULL, 10), here = c->head_size - (size_t)(body - c->head);
    if (here > size || size > BODY_MAX) return -1;
    if (c->body) { /* it was waited for */
        answer(c, target, kind, c->body, c->body_size);
        return 0;
    }
    if (here < size && wants_body(target, kind)) {
        if (!(c->body = malloc(size))) die("malloc");
        memcpy(c->body, body, here);
        c->body_size = here;
    } else {
        if (here < size && here < MARK_WITHIN && c->head_size < HEAD_MAX) return 0;
        answer(c, target, kind, body, here);
    }
    c->understood = 1;
    c->body_left = size - here;
    return 0;
}

/* Makes ready for the next request. */
static void forget(struct connection *c) {
    free(c->owned);
    free(c->body);
    c->owned = c->body = NULL;
    c->head_size = 0;
    c->understood = 0;
}

/* Both go on with a connection until it must wait, and return -1 once it is over. */
static int serve_http1(struct connection *c) {
    for (;;) {
        ssize_t moved;
        if (!c->understood) {
            if ((moved = take(c, c->head + c->head_size, HEAD_MAX - c->head_size)) <= 0) return (int)moved;
            c->head_size += (size_t)moved;
            if (understand(c) < 0) return -1;
        } else if (c->body_left) {
            size_t size = c->body_left < SCRATCH ? c->body_left : SCRATCH;
            if ((moved = take(c, c->body ? c->body + c->body_size : scratch, size)) <= 0) return (int)moved;
            c->body_left -= (size_t)moved;
            if (!c->body) continue;
            c->body_size += (size_t)moved;
            if (!c->body_left && understand(c) < 0) return -1;
        } else if (c->out_left) {
            if ((moved = give(c)) <= 0) return (int)moved;
            c->out += moved;
            c->out_left -= (size_t)moved;
        } else {
            forget(c);
            wait_for(c, EPOLLIN);
        }
    }
}

static int serve_http2(struct connection *c) {
    for (;;) {
        ssize_t got = take(c, scratch, SCRATCH), put = 0;
        if (got < 0 || http2_take(c->http2, (const unsigned char *)scratch, (size_t)got) < 0) return -1;
        c->out = (const char *)http2_give(c->http2, &c->out_left);
        if (c->out_left && (put = give(c)) < 0) return -1;
        http2_given(c->http2, (size_t)put);
        if (got == 0 && put == 0) {
            wait_for(c, EPOLLIN | (c->out_left ? EPOLLOUT : 0));
            return 0;
        }
    }
}

static int serve(struct connection *c) {
#ifndef NO_TLS
    if (c->ssl && !SSL_is_init_finished(c->ssl)) {
        int done = SSL_do_handshake(c->ssl);
        if (done <= 0) return (int)tls_outcome(c, done);
        const unsigned char *protocol;
        unsigned size;
        SSL_get0_alpn_selected(c->ssl, &protocol, &size);
        if (size == 2) c->http2 = http2_new(); /* "h2" */
    }
#endif
    return c->http2 ? serve_http2(c) : serve_http1(c);
}

static void welcome(int listener, SSL_CTX *tls) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (fd < 0) return;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) die("calloc");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
#ifndef NO_TLS
    if (tls) {
        c->ssl = SSL_new(tls);
        SSL_set_fd(c->ssl, fd);
        SSL_set_accept_state(c->ssl);
    }
#else
    (void)tls;
#endif
    wait_for(c, EPOLLIN);
}

static void part(struct connection *c) {
#ifndef NO_TLS
    SSL_free(c->ssl);
#endif
    close(c->fd);
    if (c->http2) http2_free(c->http2);
    forget(c);
    free(c);
}

/* Listens on a free port of 127.0.0.1, says which, and returns the socket. */
static int listen_on(int *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 1024) < 0) die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &size) < 0) die("getsockname");
    *port = ntohs(at.sin_port);
    return fd;
}

#ifndef NO_TLS
static int choose_http2(SSL *ssl, const unsigned char **chosen, unsigned char *size, const unsigned char *offered, unsigned offered_size,
                        void *unused) {
    (void)ssl, (void)unused;
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    unsigned char *found;
    int how = SSL_select_next_proto(&found, size, ours, sizeof ours - 1, offered, offered_size);
    *chosen = found;
    return how == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}
#endif

static SSL_CTX *tls_context(const char *certificate, const char *key, int with_http2) {
#ifndef NO_TLS
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (!tls || SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, SCRATCH);
    if (with_http2) SSL_CTX_set_alpn_select_cb(tls, choose_http2, NULL);
    return tls;
#else
    (void)with_http2;
    fprintf(stderr, "built without TLS: %s and %s are of no use\n", certificate, key);
    exit(1);
#endif
}

int main(int count, char **arguments) {
    if (count < 4) {
        fprintf(stderr, "usage: %s CERT KEY OPERATION:FORMAT:MARKS:FILE...\n", arguments[0]);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 3; i < count; i++) load(arguments[i]);
    int with_tls = strcmp(arguments[1], "-") != 0;
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");

    struct { int fd, port; SSL_CTX *tls; } listeners[3] = {0};
    int listener_count = with_tls ? 3 : 1;
    for (int i = 0; i < listener_count; i++) {
        listeners[i].fd = listen_on(&listeners[i].port);
        if (i) listeners[i].tls = tls_context(arguments[1], arguments[2], i == 2);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listeners[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, listeners[i].fd, &event) < 0) die("epoll_ctl");
    }
    printf("%d %d %d\n", listeners[0].port, listeners[1].port, listeners[2].port);
    fflush(stdout);

    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int ready = epoll_wait(poller, events, EVENTS_MAX, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            void *what = events[i].data.ptr;
            int listener = 0;
            while (listener < listener_count && what != &listeners[listener]) listener++;
            if (listener < listener_count)
                welcome(listeners[listener].fd, listeners[listener].tls);
            else if (serve(what) < 0)
                part(what);
        }
    }
}
