"""The part about sending with `AsyncHub` and `Hub`: many callers at once, many notifications, long ones.

Everything but the long ones goes to one database, in which one other process listens to the channel and takes what
comes; before anybody's next turn it has everything, and as many as were sent. A hub listens there too, to its own
heartbeats, and PostgreSQL before version 19 wakes all who listen: that is part of what it costs.

audience     the database, and who listens there
callers      who is called by many at once, and how they call
tasks        those that are called by tasks
threads      those that are called by threads
sizes        everybody's turns, with as many connections as suit each best
many         who sends a hundred thousand in one transaction
large        who carries a mebibyte from one process to another
streaming    who sends a million, in a process of its own: speed and memory
typed        what a channel's type costs
part         what is measured, what is shown, and the aims
"""
