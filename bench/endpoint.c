/* Answers Kinesis requests with bytes that were made beforehand, so that a benchmark measures the client alone.
 *
 *     endpoint CERT KEY OPERATION:FORMAT:MARK:FILE...
 *
 * Listens on two free ports of 127.0.0.1, plain and TLS (none where CERT is "-"), and prints both numbers on one line, 0 for
 * none. A request is answered by the first FILE whose OPERATION ends X-Amz-Target, whose FORMAT ("json" or "cbor") stands in
 * Content-Type, and whose MARK stands in the first bytes of the body (an empty MARK always does). HTTP/1.1 with keep-alive
 * and Content-Length; no pipelining. Signatures are not looked at. One thread, epoll; ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef NO_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
typedef void SSL_CTX;
#endif

enum { HEAD_MAX = 16384, MARK_WITHIN = 1024, ANSWERS_MAX = 16, EVENTS_MAX = 64, SCRATCH = 1 << 18 };

struct answer {
    const char *operation, *format, *mark;
    char *bytes; /* status line, headers and body */
    size_t size;
};

struct connection {
    int fd;
    SSL *ssl;                 /* NULL: plain */
    char head[HEAD_MAX + 1];  /* the request's head and the beginning of its body */
    size_t head_size;
    const struct answer *answer; /* what to answer once the body is read; NULL: the head is not read yet */
    size_t body_left;
    const char *out; /* what is left to write */
    size_t out_left;
    uint32_t waits_for;
};

static struct answer answers[ANSWERS_MAX];
static size_t answer_count;
static int poller;
static char scratch[SCRATCH];

static const char NOT_KNOWN[] =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 35\r\n\r\n"
    "{\"__type\":\"UnknownOperationBench\"}\n";
static const struct answer not_known = {"", "", "", (char *)NOT_KNOWN, sizeof NOT_KNOWN - 1};

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Reads "OPERATION:FORMAT:MARK:FILE" and puts the HTTP head before the file's bytes. */
static void load(char *argument) {
    if (answer_count == ANSWERS_MAX) die("too many answers");
    struct answer *answer = &answers[answer_count++];
    answer->operation = strsep(&argument, ":");
    answer->format = strsep(&argument, ":");
    answer->mark = strsep(&argument, ":");
    int file = open(argument ? argument : "", O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(argument);
    answer->bytes = malloc(512 + (size_t)about.st_size);
    if (!answer->bytes) die("malloc");
    int head = snprintf(answer->bytes, 512,
                        "HTTP/1.1 200 OK\r\n"
                        "x-amzn-RequestId: e4a1c7f2-9b7d-4c5e-8a35-1f0b6d2c9e17\r\n"
                        "x-amz-id-2: rJ0mVh3nU8d5Qx2yT7kLw9pZcB4sF6gAeN1oRiXuYvHtMqPlKjDzSbWfCgEa0I5O\r\n"
                        "Date: Mon, 02 Nov 2026 12:00:00 GMT\r\n"
                        "Content-Type: application/x-amz-%s-1.1\r\n"
                        "Content-Length: %lld\r\n\r\n",
                        answer->format, (long long)about.st_size);
    for (answer->size = (size_t)head; answer->size < (size_t)head + (size_t)about.st_size;) {
        ssize_t got = read(file, answer->bytes + answer->size, (size_t)head + (size_t)about.st_size - answer->size);
        if (got <= 0) die(argument);
        answer->size += (size_t)got;
    }
    close(file);
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

static int ends_with(const char *value, const char *word) {
    size_t size = strcspn(value, "\r"), tail = strlen(word);
    return size >= tail && memcmp(value + size - tail, word, tail) == 0;
}

/* Chooses the answer once the head and the beginning of the body are here. Returns -1 for what is no request. */
static int understand(struct connection *c) {
    c->head[c->head_size] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return c->head_size == HEAD_MAX ? -1 : 0;
    end[2] = 0; /* the head's own end; the body stays as it is */
    const char *length = header(c->head, "content-length"), *target = header(c->head, "x-amz-target"),
               *kind = header(c->head, "content-type");
    end[2] = '\r';
    if (!length || !target || !kind) return -1;
    size_t body = strtoul(length, NULL, 10), here = c->head_size - (size_t)(end + 4 - c->head);
    if (here < body && here < MARK_WITHIN && c->head_size < HEAD_MAX) return 0;
    if (here > body) return -1;
    c->answer = &not_known;
    for (size_t i = 0; i < answer_count && c->answer == &not_known; i++) {
        const struct answer *a = &answers[i];
        const char *format = memmem(kind, strcspn(kind, "\r"), a->format, strlen(a->format));
        if (format && ends_with(target, a->operation) && memmem(end + 4, here, a->mark, strlen(a->mark))) c->answer = a;
    }
    c->body_left = body - here;
    return 0;
}

/* Goes on with a connection until it must wait. Returns -1 once it is over. */
static int serve(struct connection *c) {
    for (;;) {
        ssize_t moved;
        if (c->out_left) {
            if ((moved = give(c)) <= 0) return (int)moved;
            c->out += moved;
            c->out_left -= (size_t)moved;
            if (!c->out_left) wait_for(c, EPOLLIN);
        } else if (!c->answer) {
            if ((moved = take(c, c->head + c->head_size, HEAD_MAX - c->head_size)) <= 0) return (int)moved;
            c->head_size += (size_t)moved;
            if (understand(c) < 0) return -1;
        } else if (c->body_left) {
            if ((moved = take(c, scratch, c->body_left < SCRATCH ? c->body_left : SCRATCH)) <= 0) return (int)moved;
            c->body_left -= (size_t)moved;
        }
        if (c->answer && !c->body_left) {
            c->out = c->answer->bytes;
            c->out_left = c->answer->size;
            c->answer = NULL;
            c->head_size = 0;
        }
    }
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
    free(c);
}

/* Listens on a free port of 127.0.0.1, says which, and returns the socket. */
static int listen_on(int *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 64) < 0) die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &size) < 0) die("getsockname");
    *port = ntohs(at.sin_port);
    return fd;
}

static SSL_CTX *tls_context(const char *certificate, const char *key) {
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
    return tls;
#else
    fprintf(stderr, "built without TLS: %s and %s are of no use\n", certificate, key);
    exit(1);
#endif
}

int main(int count, char **arguments) {
    if (count < 4) {
        fprintf(stderr, "usage: %s CERT KEY OPERATION:FORMAT:MARK:FILE...\n", arguments[0]);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 3; i < count; i++) load(arguments[i]);
    SSL_CTX *tls = strcmp(arguments[1], "-") == 0 ? NULL : tls_context(arguments[1], arguments[2]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");

    int plain_port = 0, tls_port = 0, plain_listener = listen_on(&plain_port);
    int tls_listener = tls ? listen_on(&tls_port) : -1;
    for (int i = 0; i < (tls ? 2 : 1); i++) {
        int *listener = i ? &tls_listener : &plain_listener;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, *listener, &event) < 0) die("epoll_ctl");
    }
    printf("%d %d\n", plain_port, tls_port);
    fflush(stdout);

    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int ready = epoll_wait(poller, events, EVENTS_MAX, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            void *what = events[i].data.ptr;
            if (what == &plain_listener)
                welcome(plain_listener, NULL);
            else if (what == &tls_listener)
                welcome(tls_listener, tls);
            else if (serve(what) < 0)
                part(what);
        }
    }
}
