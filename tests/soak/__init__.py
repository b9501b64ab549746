"""Everything at once at a constant rate, for as long as one likes, and a look at what grows: `python -m tests.soak`.

    load        the process under test: whoever sends, receives, handles and comes and goes, in one process
      stage     what its parts share: threads, rates, counts
      channels  hubs with subscribers of every sort, and those who send to them
      streams   appends with retention, and readers that stop and go on
      groups    handlers and consumers, some of which fail
      classic   PubSub, NotificationHandler, and triggers on a table
      gateway   the gateway, and its clients
    accounts    whether each has got everything, in constant memory
    insight     what a process can say of itself: memory, objects, latencies
    sampling    what others can say of it: the system and the server
    lines       what is measured, and by how much it may grow
    verdict     which lines grow
    run         the process, the sampler, and a terminated backend now and then
    plot        a picture, with a panel for each line
    report      docs/reliability.md, with the figures of the last run that was recorded

The process under test is the library's user and its peer at once: clients of the gateway run in it too. So what grows
may be theirs; the types of the objects that have become more tell.
"""
