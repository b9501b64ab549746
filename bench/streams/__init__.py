"""The part about streams, beside what people write by hand for the same and beside job queues.

part      what is measured and shown, with its aims
places    where: servers that wait for a disk, and what everybody's tables are
writers   who appends from many tasks or threads, each waiting for its commit
appends   how many appends that gives
catch_up  who reads all that is there, and how fast
lines     who carries an entry from this process to another, as it comes
arrivals  how long each takes, at a given rate
growth    what that costs when much is stored, or a transaction is open
"""
