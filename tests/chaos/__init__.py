"""Faults at random, under load, against everything at once, and a check of every message: `python -m tests.chaos`.

    plan        which faults, when and how: all of it follows from a seed
    arena       two servers, of which one is the standby of the other, proxies before them, and who takes part
    faults      what can be done to them
    publishing  who sends and appends, and notes what became of each message
    receiving   who subscribes and reads, and notes what came: hubs of both kinds, clients of the gateway
    checks      what has to be true of these notes
    ledger      all notes together
    campaign    rounds of it
    report      docs/reliability.md, with what is promised

Each who takes part is a process of its own that writes a journal, a line for each thing that happens, so that nothing
of it is forgotten when it is killed. All journals have the same clock, CLOCK_MONOTONIC, which nobody steps.

A seed repeats the plan exactly: the same faults with the same choices at the same places between the same messages. It
does not repeat what processes and a server do at the same time.
"""
