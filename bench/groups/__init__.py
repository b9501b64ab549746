"""The part about groups, beside what people write by hand for the same and beside job queues.

part       what is measured and shown, with its aims
ways       how each contestant stores what is to be handled, and who handles it
ours       who handles entries with pgpubsub
by_hand    who handles rows of a table, with psycopg alone
libraries  who handles jobs with a library of others
crew       the processes of the members, and one turn of them
yard       the databases in which that takes place
handled    how many are acknowledged per second
called     how long it takes from an append to the handler
growth     what becomes of both when much has gone through, or a transaction is open
kept       what the tables grow to in an hour with retention
"""
