"""The decisions, without the waiting.

Nothing in here opens a socket, starts a thread, reads a clock or draws a random number: time and
randomness are given to it. A shell asks `session.Session.next_step` what to do, does it, and reports what
became of it. That is why all of it can be tested with thousands of random schedules a second.
"""
