/*
 * Many clients of server-sent events in one process, which only counts: how many messages each has got, and how old
 * they were. A message's data is a time of CLOCK_MONOTONIC in nanoseconds, which also tells it from others.
 *
 *     load PORT CLIENTS PATH
 *
 * It says "live" once each client has the head of its response. Then it carries out orders from its standard input:
 *
 *     MESSAGES SECONDS SINCE
 *
 * Count messages of SINCE (nanoseconds) or later until each client has got so many, or for so many seconds. It says
 * "counting" when it begins, and in the end, on one line: how many have come, of those that count; out of order; when
 * the last came; connections that were closed; and how old they were, as pairs of nanoseconds and a count. It ends with
 * its standard input.
 *
 * Each client has an address of its own, as clients do: 127.1.0.0/16. (One address has ports for some 28,000.)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTING_AT_ONCE 100
#define STEPS 64 /* to the double of an age: what is told is 1.6 percent more at most */
#define INPUT UINT32_MAX

struct client {
    int fd;
    int matched; /* characters of DATA that the last ones were */
    int in_number, live;
    uint64_t number, newest;
    uint32_t got; /* of those that count */
};

static const char DATA[] = "\ndata: ";

static struct client *clients;
static int wanted_clients, started, live, closed, poller;
static struct sockaddr_in server;
static char request[1024];
static int request_length;

static uint32_t wanted; /* messages, by each client; 0: nothing is to be counted */
static uint64_t since, deadline, arrived, disordered, last;
static uint64_t ages[64 * STEPS];

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "client %d: %s: %s\n", started, what, errno ? strerror(errno) : "not what was expected");
    exit(1);
}

static int step_of(uint64_t age)
{
    if (age < STEPS)
        return age;
    int doublings = 63 - __builtin_clzll(age) - 6;
    return (doublings + 1) * STEPS + (age >> doublings) - STEPS;
}

static uint64_t upper_end(int step)
{
    if (step < STEPS)
        return step;
    int doublings = step / STEPS - 1;
    return ((uint64_t)(step % STEPS + STEPS + 1) << doublings) - 1;
}

static void start_client(void)
{
    struct client *client = &clients[started];
    struct sockaddr_in own = {.sin_family = AF_INET};
    int yes = 1;
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (client->fd < 0)
        fail("socket");
    own.sin_addr.s_addr = htonl(0x7f010001 + started);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(client->fd, (struct sockaddr *)&own, sizeof own))
        fail("bind");
    if (connect(client->fd, (struct sockaddr *)&server, sizeof server))
        fail("connect");
    if (write(client->fd, request, request_length) != request_length)
        fail("write");
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = started++};
    epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event);
}

static void on_number(struct client *client, uint64_t at)
{
    uint64_t number = client->number;
    if (!wanted || number < since)
        return;
    if (number <= client->newest)
        disordered++; /* or twice */
    else
        client->newest = number;
    if (client->got == wanted)
        return;
    client->got++;
    arrived++;
    last = at;
    ages[step_of(at > number ? at - number : 0)]++;
}

static void on_text(struct client *client, const char *text, const char *end)
{
    uint64_t at = now();
    while (text < end) {
        if (client->in_number) {
            if (*text >= '0' && *text <= '9') {
                client->number = client->number * 10 + (*text++ - '0');
                continue;
            }
            client->in_number = 0;
            on_number(client, at);
        }
        if (!client->matched && !(text = memchr(text, DATA[0], end - text)))
            return;
        if (*text == DATA[client->matched]) {
            if (!DATA[++client->matched]) {
                client->matched = 0;
                client->in_number = 1;
                client->number = 0;
            }
        } else
            client->matched = *text == DATA[0];
        text++;
    }
}

static void on_readable(struct client *client)
{
    static char text[1 << 18];
    ssize_t length = read(client->fd, text, sizeof text);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        if (!client->live)
            fail("it was refused");
        close(client->fd);
        closed++;
        return;
    }
    if (!client->live) {
        errno = 0;
        if (length < 12 || memcmp(text, "HTTP/1.1 200", 12)) {
            fprintf(stderr, "%.*s\n", (int)length, text);
            fail("its response");
        }
        client->live = 1;
        if (++live == wanted_clients)
            puts("live");
    }
    on_text(client, text, text + length);
}

static void report(void)
{
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %d", arrived, disordered, last, closed);
    for (int step = 0; step < 64 * STEPS; step++)
        if (ages[step])
            printf(" %" PRIu64 " %" PRIu64, upper_end(step), ages[step]);
    puts("");
    wanted = 0;
}

static void on_order(void)
{
    char line[256];
    double seconds;
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    if (sscanf(line, "%" SCNu32 " %lf %" SCNu64, &wanted, &seconds, &since) != 3)
        exit(2);
    for (int i = 0; i < wanted_clients; i++)
        clients[i].got = clients[i].newest = 0;
    memset(ages, 0, sizeof ages);
    arrived = disordered = last = 0;
    deadline = now() + seconds * 1e9;
    puts("counting");
}

static void prepare(char **arguments)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, 0, _IOLBF, 1 << 16);
    setvbuf(stdin, 0, _IONBF, 0);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(arguments[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wanted_clients = atoi(arguments[2]);
    clients = calloc(wanted_clients, sizeof *clients);
    request_length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nAccept: text/event-stream\r\n\r\n", arguments[3], arguments[1]);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = INPUT};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
}

int main(int count, char **arguments)
{
    static struct epoll_event events[1024];
    if (count != 4)
        return 2;
    prepare(arguments);
    for (;;) {
        while (started < wanted_clients && started - live < CONNECTING_AT_ONCE)
            start_client();
        int ready = epoll_wait(poller, events, 1024, 100);
        for (int i = 0; i < ready; i++)
            if (events[i].data.u32 == INPUT)
                on_order();
            else
                on_readable(&clients[events[i].data.u32]);
        if (wanted && (arrived == (uint64_t)wanted * wanted_clients || now() > deadline))
            report();
    }
}
