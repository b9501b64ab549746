"""The part about triggers, beside what people write by hand and what pgpubsub 0.0.5 brought along.

part    what is measured and shown, with its aims
ways    whose triggers
writes  what they cost those who write: one row, 100,000 in one statement, and 16 writers on a slow disk
"""
