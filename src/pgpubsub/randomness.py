"""The randomness that the core is given."""

from __future__ import annotations

import random
import secrets
from functools import partial

from pgpubsub.core.backoff import backoff

__all__ = ["new_delays", "new_message_id", "spread"]


def spread(seconds: float) -> float:
    """A delay from half of `seconds` up to that, so that what failed together does not come again together."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311  # nobody gains by guessing it


new_delays = partial(backoff, random.random)
"""Makes the delays between attempts to connect."""

new_message_id = partial(secrets.token_hex, 8)
"""Makes the name of a message that is sent in parts."""
