"""What Python imports before anything else, in all who take part: faults come more often than sessions last, so that
everybody would soon wait for as long as a hub ever does between two attempts to connect, half a minute."""

from pgpubsub.core.backoff import backoff
from pgpubsub.streams import source

assert backoff.__kwdefaults__ is not None
backoff.__kwdefaults__["maximum"] = 1.0
source.ANSWER = 3.0  # seconds, instead of thirty, after which a server that says nothing is given up
