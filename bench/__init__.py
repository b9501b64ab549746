"""How fast pgpubsub is beside other ways to receive notifications in Python: `python -m bench`.

Measured, all in one run against a PostgreSQL server of its own, over TCP on this machine:

- throughput and CPU time per notification, of bursts that wait at the receiver and of bursts on their way;
- latency from a NOTIFY to the event, on one connection and between two processes.

The machine is taken to be noisy. So the contestants take turns of some tens of milliseconds, in an order that
is shuffled each time, each is compared with the others *of the same round*, and what is printed is the median
of those ratios over all rounds, with their quartiles. Whatever makes all of them slower at once cancels out;
what makes one of them wait now and then does not, so a p99 is worth less than a p50 while the machine is used
by others.

Not measured: reconnection, many channels or many listeners, encrypted connections, networks, memory, and the
server, which is the same for all. Payloads are ASCII and of 100 bytes.

    contestants  what a contestant is
    subscribers  those that are built on pgpubsub
    raw_loops    those that are built on a driver alone
    echoes       both, sending to themselves
    sender       the process that sends
    turns        one turn of one contestant, which is all the measuring
    rounds       everybody's turns, again and again
    comparison   medians, ratios and whether the aims are met
    report       the tables and the JSON
"""
