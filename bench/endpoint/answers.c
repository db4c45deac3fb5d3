/* What is answered: files with a HTTP head before them, and the rules that find the one for a request. */
#define _GNU_SOURCE
#include "endpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Holes are twelve bytes wide: as wide as the number of a shard, and as part of a sequence number. */
enum { HOLE = 12 };
static const char *const HOLES[] = {[SHARD] = "<SHARD-0000>", [PAGE] = "<PAGE-00000>", [NEXT_PAGE] = "<NEXT-00000>"};

static struct answer answers[ANSWERS_MAX];
static size_t answer_count;

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\n"
    "x-amzn-RequestId: e4a1c7f2-9b7d-4c5e-8a35-1f0b6d2c9e17\r\n"
    "x-amz-id-2: rJ0mVh3nU8d5Qx2yT7kLw9pZcB4sF6gAeN1oRiXuYvHtMqPlKjDzSbWfCgEa0I5O\r\n"
    "Date: Mon, 02 Nov 2026 12:00:00 GMT\r\n";

size_t write_head(char *into, size_t room, const char *format, size_t size) {
    int head = snprintf(into, room, "%sContent-Type: application/x-amz-%s-1.1\r\nContent-Length: %zu\r\n\r\n", HEAD, format, size);
    return (size_t)head;
}

static size_t frame_size(const char *frame) {
    const unsigned char *at = (const unsigned char *)frame;
    return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
}

const char *chunked(const struct answer *answer, size_t *size) {
    static struct { const struct answer *of; char *bytes; size_t size; } made[ANSWERS_MAX];
    size_t i = 0;
    while (made[i].of && made[i].of != answer) i++;
    if (!made[i].of) {
        made[i].of = answer;
        size_t frames = 0;
        const char *end = answer->bytes + answer->size;
        for (const char *at = answer->bytes; at < end; at += frame_size(at)) frames++;
        char *into = made[i].bytes = malloc(512 + answer->size + 16 * (frames + 1));
        if (!into) die("malloc");
        into += sprintf(into, "%sContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD);
        for (const char *at = answer->bytes; at < end; at += frame_size(at)) {
            into += sprintf(into, "%zx\r\n", frame_size(at));
            memcpy(into, at, frame_size(at));
            into += frame_size(at);
            into += sprintf(into, "\r\n");
        }
        into += sprintf(into, "0\r\n\r\n");
        made[i].size = (size_t)(into - made[i].bytes);
    }
    *size = made[i].size;
    return made[i].bytes;
}

static void find_holes(struct answer *answer) {
    size_t room = 0;
    char *end = answer->bytes + answer->size;
    for (char *at = answer->bytes; (at = memchr(at, '<', (size_t)(end - at))) != NULL; at++) {
        for (int what = SHARD; what <= NEXT_PAGE; what++) {
            if (end - at < HOLE || memcmp(at, HOLES[what], HOLE) != 0) continue;
            if (answer->hole_count == room) {
                room = room ? 2 * room : 16;
                answer->holes = realloc(answer->holes, room * sizeof *answer->holes);
                if (!answer->holes) die("realloc");
            }
            answer->holes[answer->hole_count++] = (struct hole){.at = (size_t)(at - answer->bytes), .what = what};
        }
    }
}

/* Reads "OPERATION:FORMAT:MARKS:FILE", or "OPERATION:FORMAT:MARKS:=SHARDS" for a PutRecords that is answered by what it holds.
 * FORMAT is "json" or "cbor"; an event stream's begins with "stream-". MARKS are joined by "&". */
void load(char *argument) {
    if (answer_count == ANSWERS_MAX) die("too many answers");
    struct answer *answer = &answers[answer_count++];
    answer->operation = strsep(&argument, ":");
    answer->format = strsep(&argument, ":");
    answer->marks = strsep(&argument, ":");
    if (argument && argument[0] == '=') {
        answer->kind = PUT;
        answer->shards = (unsigned)strtoul(argument + 1, NULL, 10);
        return;
    }
    int file = open(argument ? argument : "", O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0) die(argument);
    answer->bytes = malloc(512 + (size_t)about.st_size);
    if (!answer->bytes) die("malloc");
    int is_stream = strncmp(answer->format, "stream-", 7) == 0;
    if (is_stream)
        answer->format += 7;
    else
        answer->size = write_head(answer->bytes, 512, answer->format, (size_t)about.st_size);
    size_t whole = answer->size + (size_t)about.st_size;
    while (answer->size < whole) {
        ssize_t got = read(file, answer->bytes + answer->size, whole - answer->size);
        if (got <= 0) die(argument);
        answer->size += (size_t)got;
    }
    close(file);
    if (is_stream) {
        answer->kind = STREAM;
        return;
    }
    find_holes(answer);
    answer->kind = answer->hole_count ? FILLED : WHOLE;
}

/* Returns where a text stands in the beginning or in the end of a body, or NULL: members come in any order. */
static const char *find(const char *body, size_t size, const char *text, size_t text_size) {
    const char *found = memmem(body, size < MARK_WITHIN ? size : MARK_WITHIN, text, text_size);
    if (found || size <= MARK_WITHIN) return found;
    return memmem(body + size - MARK_WITHIN, MARK_WITHIN, text, text_size);
}

static int has_marks(const char *marks, const char *body, size_t size) {
    while (*marks) {
        size_t length = strcspn(marks, "&");
        if (!find(body, size, marks, length)) return 0;
        marks += length + (marks[length] == '&');
    }
    return 1;
}

static int ends_with(const char *value, const char *word) {
    size_t size = strcspn(value, "\r"), tail = strlen(word);
    return size >= tail && memcmp(value + size - tail, word, tail) == 0;
}

static int is_for(const struct answer *a, const char *target, const char *kind) {
    if (target && !ends_with(target, a->operation)) return 0;
    return !kind || memmem(kind, strcspn(kind, "\r"), a->format, strlen(a->format)) != NULL;
}

const struct answer *choose(const char *target, const char *kind, const char *body, size_t size) {
    for (size_t i = 0; i < answer_count; i++) {
        const struct answer *a = &answers[i];
        if (target ? !is_for(a, target, kind) : a->kind != STREAM) continue;
        if (!target && (a->format[0] == 'j') != (size && body[0] == '{')) continue; /* HTTP/2: the body tells its format */
        if (has_marks(a->marks, body, size)) return a;
    }
    return NULL;
}

int wants_body(const char *target, const char *kind) {
    for (size_t i = 0; i < answer_count; i++)
        if (answers[i].kind == PUT && is_for(&answers[i], target, kind)) return 1;
    return 0;
}

/* Returns the number that stands in a body after a text, 0 where there is none. */
static unsigned long long number_after(const char *body, size_t size, const char *text) {
    const char *at = find(body, size, text, strlen(text));
    if (!at) return 0;
    unsigned long long number = 0;
    for (at += strlen(text); at < body + size && *at >= '0' && *at <= '9'; at++) number = 10 * number + (unsigned)(*at - '0');
    return number;
}

static void write_number(char *into, unsigned long long number) {
    for (int i = HOLE - 1; i >= 0; i--, number /= 10) into[i] = (char)('0' + number % 10);
}

char *filled(const struct answer *answer, const char *body, size_t size) {
    char *copy = malloc(answer->size);
    if (!copy) die("malloc");
    memcpy(copy, answer->bytes, answer->size);
    unsigned long long page = number_after(body, size, "page-");
    char numbers[3][HOLE];
    write_number(numbers[SHARD], number_after(body, size, "shardId-"));
    write_number(numbers[PAGE], page);
    write_number(numbers[NEXT_PAGE], page + 1);
    for (size_t i = 0; i < answer->hole_count; i++)
        memcpy(copy + answer->holes[i].at, numbers[answer->holes[i].what], HOLE);
    return copy;
}
