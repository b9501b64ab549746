"""The part about Django Channels' channel layers, beside one in PostgreSQL and two in Redis.

part      what is measured and shown, with its aims
ways      whose channel layer: its settings, and what it needs before
server    Redis
post      what is sent, and what is told about it
sender    the process that sends
receiver  the processes that receive
yard      where they are, through all rounds
turns     one turn of them
"""
