"""The classic interface: one connection that its caller drives, in the caller's thread.

pubsub.py      PubSub and connect(), as in pgpubsub 0.0.5
handler.py     NotificationHandler, as in PyGreSQL
listener.py    the connection that they share: does what `core.session` decides, and waits where it says so
delivery.py    who gets which notification
exclusive.py   one user at a time; threads, signals and fork()
waiting.py     waiting for a socket, a time or another thread
"""
