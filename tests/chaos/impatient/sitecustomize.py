"""What Python imports before anything else, in all who take part: faults come more often than sessions last, so that
everybody would soon wait for as long as a hub ever does between two attempts to connect, half a minute."""

import random
from functools import partial

from pgpubsub.core.backoff import backoff
from pgpubsub.hubs import engine
from pgpubsub.streams import source

patience = partial(backoff, random.random, maximum=1.0)
engine.new_delays = patience  # type: ignore[attr-defined]
source.ANSWER = 3.0  # seconds, instead of thirty, after which a server that says nothing is given up
