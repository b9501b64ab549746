"""How fast pgpubsub is beside other ways to do the same, and what it costs: `python -m bench`.

All is measured in one run against PostgreSQL servers of its own, over TCP on this machine, in nine parts; each says at
its head what it measures and how. docs/performance.md is made of that and of the figures (`bench.performance`).

The machine is taken to be noisy. So the contestants take turns of some tens of milliseconds, in an order that
is shuffled each time, each is compared with the others *of the same round*, and what is printed is the median
of those ratios over all rounds, with their quartiles (of fewer than five, the lowest and the highest). Whatever makes
all of them slower at once cancels out; what makes one of them wait now and then does not, so a p99 is worth less than a
p50 while the machine is used by others. A run waits until it is not, for a while, and says so if it still is.

Everybody is used as its own manual has it, at the pinned version (`bench.peers`). Beside the peers stand limits: loops
in C over libpq, and pgbench. Payloads are ASCII, of 100 bytes in `pubsub`, of 20 bytes in `hub` and of 40 bytes in
`sending`, unless it says otherwise.

Not measured: reconnection, encrypted connections, networks, and the server, which is the same for all.

    run          one run: options, rounds, results
    parts        the parts, and how much of each is measured
    pubsub       the part about one connection
    hub/         the part about the hub
    sending/     the part about sending
    streams/     the part about streams
    groups/      the part about groups
    triggers/    the part about triggers
    layers/      the part about channel layers
    gateway/     the part about the web gateway
    cost/        the part about memory, connections and idleness
    peers/       a file for each library of others
    performance/ docs/performance.md
    pins         the versions
    contestants  what a contestant is
    subscribers  those that are built on PubSub
    on_loop      what receivers in an event loop have in common
    publishing   what those have in common who send one notification after the other
    callers      what those have in common who are called by many at once
    carrying     what those have in common who carry messages to another process
    sender       the process that sends
    child        other processes
    processes    what processes take
    ground       where it takes place, and how much is measured
    turns        one turn of one contestant
    rounds       everybody's turns, again and again
    comparison   medians, ratios and whether the aims are met
    table        the tables
    report       the JSON, and on what it was measured
    plot         the pictures beside the JSON
"""
