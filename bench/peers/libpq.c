/*
 * What PostgreSQL's own client library takes, with the fewest steps around it: the limit for all who use it.
 *
 * Times are of CLOCK_MONOTONIC in nanoseconds, which is Python's time.monotonic_ns(). What fails returns -1; then
 * PQerrorMessage() says why.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define SIZE 8000

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Wait for so many notifications; the last one's pid, channel and payload. */
int64_t receive(PGconn *connection, long count, int *pid, char *channel, char *payload)
{
    struct pollfd readable = {.fd = PQsocket(connection), .events = POLLIN};
    while (count > 0) {
        PGnotify *notify = PQnotifies(connection);
        if (!notify) {
            if (poll(&readable, 1, -1) < 0 || !PQconsumeInput(connection))
                return -1;
            continue;
        }
        if (!--count) {
            *pid = notify->be_pid;
            strncpy(channel, notify->relname, SIZE);
            strncpy(payload, notify->extra, SIZE);
        }
        PQfreemem(notify);
    }
    return now();
}

/* The statement `name` takes a channel and a payload. */
int prepare(PGconn *connection, const char *name)
{
    PGresult *result = PQprepare(connection, name, "SELECT pg_notify($1, $2)", 2, NULL);
    int good = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return good ? 0 : -1;
}

static int notify(PGconn *connection, const char *name, const char *channel, const char *payload)
{
    const char *values[] = {channel, payload};
    PGresult *result = PQexecPrepared(connection, name, 2, values, NULL, NULL, 0);
    int good = PQresultStatus(result) == PGRES_TUPLES_OK;
    PQclear(result);
    return good ? 0 : -1;
}

/* Notify so many times, one after the other; how long each took. */
int publish(PGconn *connection, const char *name, const char *channel, const char *payload, long times, int64_t *took)
{
    for (long i = 0; i < times; i++) {
        int64_t start = now();
        if (notify(connection, name, channel, payload))
            return -1;
        took[i] = now() - start;
    }
    return 0;
}

/* Notify, and wait for the notification that this brings. */
int64_t echo(PGconn *connection, const char *name, const char *channel, const char *payload, char *received)
{
    int pid;
    char its_channel[SIZE];
    if (notify(connection, name, channel, payload))
        return -1;
    return receive(connection, 1, &pid, its_channel, received);
}
