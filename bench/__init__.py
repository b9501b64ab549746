"""How fast pgpubsub is beside other ways to send and receive notifications in Python: `python -m bench`.

Measured, all in one run against PostgreSQL servers of its own, over TCP on this machine, in eight parts:

- `pubsub`, one connection that its caller drives: throughput and CPU time per notification, of bursts that wait at
  the receiver and of bursts on their way; latency from a NOTIFY to the event, on one connection and between two
  processes;
- `hub`, many subscribers on one connection: the same for one subscription; one message to a thousand subscribers;
  the time of a call that sends, and of listening to a thousand channels; the CPU time of idleness, and memory;
- `sending`, what becomes of sending: many tasks or threads that call at once, beside pools of the number of connections
  that suits each best; one call after the other; a hundred thousand in one transaction, and a million in a row; a
  mebibyte from one process to another; and what a channel's type costs;
- `streams`, what is kept: many that append at once, beside tables and queues, on a disk that takes a millisecond and on
  that of this machine; a million entries caught up with; from an append to its reader; and all that as it grows;
- `groups`, what is handled: acknowledged per second by 1, 4 and 16 members, beside tables by hand and job queues; from
  an append to the handler; and both when much has gone through, or a transaction stays open;
- `triggers`, what a table's triggers cost those who write;
- `layers`, Django Channels' channel layers: latency, messages and deliveries per second, beside channels_postgres and
  channels_redis;
- `gateway`, server-sent events to up to 10,000 clients: deliveries per second, delay and memory, beside applications
  over broadcaster, pg-sse and a connection for each client.

The machine is taken to be noisy. So the contestants take turns of some tens of milliseconds, in an order that
is shuffled each time, each is compared with the others *of the same round*, and what is printed is the median
of those ratios over all rounds, with their quartiles. Whatever makes all of them slower at once cancels out;
what makes one of them wait now and then does not, so a p99 is worth less than a p50 while the machine is used
by others.

Everybody is used as its own manual has it. Libraries on asyncio run on asyncio's own event loop; uvloop is shown for
ours and for asyncpg. Payloads are ASCII, of 100 bytes in `pubsub`, of 20 bytes in `hub` and of 40 bytes in `sending`,
unless it says otherwise. The servers do not wait for the disk (`fsync` is off), nor would they otherwise: what does
nothing but notify writes nothing to wait for.

Not measured: reconnection, encrypted connections, networks, and the server, which is the same for all.

    run          one run: options, rounds, results
    pubsub       the part about one connection: what is measured and shown, with its aims
    hub/         the part about the hub
    sending/     the part about sending
    streams/     the part about streams
    groups/      the part about groups
    triggers/    the part about triggers
    layers/      the part about channel layers
    gateway/     the part about the web gateway
    contestants  what a contestant is
    subscribers  those that are built on pgpubsub
    raw_loops    those that are built on a driver alone
    on_loop      what those in an event loop have in common
    echoes       both, sending to themselves
    sender       the process that sends
    child        other processes
    ground       where it takes place, and how much is measured
    turns        one turn of one contestant, which is all the measuring
    rounds       everybody's turns, again and again
    comparison   medians, ratios and whether the aims are met
    table        the tables
    report       the JSON
    plot         the pictures
"""
