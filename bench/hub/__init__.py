"""The part about `AsyncHub` and `Hub`: many subscribers on one connection.

receivers    one subscription
publishers   who sends, one notification after the other
entrants     who begins to listen to many channels at once
fleet        who has a thousand subscribers: a process, with a server of its own
floods       who only counts while much arrives
turns        one turn of these
part         what is measured, what is shown, and the aims
"""
