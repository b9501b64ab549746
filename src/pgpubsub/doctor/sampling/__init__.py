"""What a server tells about itself, again and again: the queue, who listens, streams, and how far groups are behind.

For whoever watches: `pgpubsub top`, and `pgpubsub.contrib.prometheus`. Nothing here says what is wrong.
"""

from __future__ import annotations

from pgpubsub.doctor.sampling.figures import (
    Listener,
    Listeners,
    Missing,
    Queue,
    Sample,
    Server,
    Stream,
    Streams,
    Unseen,
)
from pgpubsub.doctor.sampling.sampler import Sampler

__all__ = ["Listener", "Listeners", "Missing", "Queue", "Sample", "Sampler", "Server", "Stream", "Streams", "Unseen"]
