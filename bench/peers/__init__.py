"""The others: one file for each library, with all that the parts of the benchmark use of it.

At the head of each stands its `PEER`: the version that it is pinned to, what is used of it, and which page of its own
documentation recommends it so. A test compares the versions with the pins in pyproject.toml, so whoever raises one
reads the adapter again. Nobody is handicapped: pools have the size that suits each best, statements are prepared where
the manual prepares them, and calls travel together where the manual shows how.

    peer               what is told of a peer
    asyncpg            the driver; and a table, and web clients, by hand over it
    asyncpg_listen     listeners that reconnect, over asyncpg
    broadcaster        publish and subscribe for asyncio
    channels_postgres  a channel layer for Django
    channels_redis     two more, in Redis
    libpq              the limit: loops in C (libpq.c) over PostgreSQL's own client library
    pgbench            the limit: PostgreSQL's own load generator
    pgmq               a queue in SQL and its client
    pgqueuer           a job queue
    pg_sse             server-sent events
    procrastinate      a job queue
    psycopg2           the driver
    psycopg3           the driver
    pygresql           the driver
    sqlspec            an event channel
    tables             what people write by hand: tables, over psycopg 3
"""
