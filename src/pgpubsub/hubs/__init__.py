"""What every hub is, whether tasks or threads subscribe: two connections, kept alive below an event loop.

engine.py      a hub, apart from its face: its beginning and end, its state and figures
receiver.py    who has subscribed to what; brings the server in line, and hands out what arrives
beats.py       its own heartbeats
sender.py      sends what is submitted, as `core.sender` decides
outgoing.py    what is given to a hub to be sent: checked, and divided
link.py        one connection after another, as `core.session` decides; a hub has two
addresses.py   where they lead
mailbox.py     what stands between the engine and one subscriber
forking.py     what happens to hubs when the process forks
"""
