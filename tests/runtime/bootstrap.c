/* A custom runtime on plain sockets: does what the word at the start of its event says. */
#define _GNU_SOURCE
#include <poll.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[16 << 20];

static int dial(void) {
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(strchr(api, ':') + 1))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) exit(9);
    return fd;
}

static void put(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) exit(8);
        data += sent, length -= sent;
    }
}

static void say(int fd, const char *text) { put(fd, text, strlen(text)); }

/* Reads one response into buffer; returns the start of its body. */
static char *hear(int fd, size_t *length) {
    size_t have = 0;
    char *end = NULL;
    *length = 0;
    while (!end || have < (size_t)(end + 4 - buffer) + *length) {
        poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1); /* as libcurl, Go and tokio do */
        ssize_t got = recv(fd, buffer + have, sizeof buffer - have - 1, 0);
        if (got <= 0) exit(7);
        buffer[have += got] = 0;
        if (!end && (end = strstr(buffer, "\r\n\r\n"))) *length = atol(strcasestr(buffer, "content-length:") + 15);
    }
    return end + 4;
}

static void post(int fd, const char *path, const char *headers, const char *body, size_t length) {
    char head[1024];
    snprintf(head, sizeof head, "POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", path,
             headers, length);
    say(fd, head);
    put(fd, body, length);
}

int main(void) {
    static char event[8 << 20], id[128], path[256];
    int fd = dial();
    size_t length;
    const char *how = getenv("HOW");
    if (how && !strcmp(how, "exit")) return 3;
    if (how && !strcmp(how, "hang")) pause();
    if (how && !strcmp(how, "init-error")) {
        const char *body = "{\"errorType\": \"Own.Reason\", \"errorMessage\": \"no database\", \"stackTrace\": [\"a\"]}";
        post(fd, "init/error", "Lambda-Runtime-Function-Error-Type: Runtime.NoDatabase\r\n", body, strlen(body));
        hear(fd, &length);
        return 1;
    }
    for (;;) {
        say(fd, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
        char *body = hear(fd, &length);
        memcpy(event, body, length), event[length] = 0;
        sscanf(strcasestr(buffer, "request-id:") + 11, " %127s", id);
        snprintf(path, sizeof path, "invocation/%s/response", id);
        const char *word = event + 1; /* the event is a JSON string */
        printf("serving %.20s\n", word), fflush(stdout);
        if (!strncmp(word, "exit", 4)) return atoi(word + 4);
        if (!strncmp(word, "segv", 4)) raise(SIGSEGV);
        if (!strncmp(word, "hang", 4)) pause();
        if (!strncmp(word, "half", 4)) {
            char head[512];
            snprintf(head, sizeof head, "POST /2018-06-01/runtime/%s HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf", path);
            say(fd, head);
            return 5;
        }
        if (!strncmp(word, "error", 5)) {
            const char *error = "{\"errorType\": \"Own.Error\", \"errorMessage\": \"it is wrong\"}";
            snprintf(path, sizeof path, "invocation/%s/error", id);
            post(fd, path, "Lambda-Runtime-Function-Error-Type: Own.Header\r\n", word[5] == '0' ? "" : error,
                 word[5] == '0' ? 0 : strlen(error));
        } else if (!strncmp(word, "large", 5)) {
            size_t size = atol(word + 5);
            char *data = malloc(size);
            memset(data, 'x', size);
            data[0] = data[size - 1] = '"';
            post(fd, path, "", data, size);
            free(data);
        } else if (!strncmp(word, "stream", 6)) {
            char head[512];
            snprintf(head, sizeof head,
                     "POST /2018-06-01/runtime/%s HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n"
                     "Transfer-Encoding: chunked\r\n%s\r\n", path,
                     word[6] == '!' ? "Trailer: Lambda-Runtime-Function-Error-Type\r\n" : "");
            say(fd, head);
            for (int i = 0; i < 3; i++) say(fd, "6\r\npiece;\r\n");
            if (word[6] == 'X') return 6;
            say(fd, "0\r\n");
            if (word[6] == '!')
                say(fd, "Lambda-Runtime-Function-Error-Type: Own.Broken\r\n"
                        "Lambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiAiT3duLkJyb2tlbiJ9\r\n");
            say(fd, "\r\n");
        } else {
            post(fd, path, "", event, length);
        }
        hear(fd, &length);
        if (!strncmp(word, "last", 4)) return 0;
        if (!strncmp(buffer, "HTTP/1.1 202", 12)) continue;
        printf("refused %.12s\n", buffer), fflush(stdout);
    }
}
