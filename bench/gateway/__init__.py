"""The part about the web gateway: clients of server-sent events, beside small applications that others would write.

part      what is measured and shown, with its aims
ways      whose server: how it is started, where its clients go, how a message is sent
serving   the server's processes
clients   the program that is all clients (load.c), as this one sees it
turns     one turn of them
"""
