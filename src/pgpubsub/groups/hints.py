"""What groups are called in the database, and how members are told that others came or went."""

from __future__ import annotations

from pgpubsub.core import sender
from pgpubsub.core.position import stream_id
from pgpubsub.errors import PubSubError
from pgpubsub.hubs.engine import Engine

__all__ = ["GROUP", "group_channel", "group_id", "tell"]

GROUP = "pgpubsub.group."
"""How the channels begin on which members are told."""


def group_id(stream: int, name: str) -> int:
    """The number under which a group is stored. The schema's function of the same name says the same."""
    return stream_id(f"{stream & 0xFFFF_FFFF_FFFF_FFFF:x} {name}")


def group_channel(group: int) -> str:
    """The channel on which members are told that others came or went."""
    return f"{GROUP}{group & 0xFFFF_FFFF_FFFF_FFFF:x}"


def tell(engine: Engine, channel: str) -> None:
    """Send a notification on `channel` that nobody waits for."""
    engine.submit(_Hint(channel))


class _Hint(sender.Call):
    """A notification for which nobody waits."""

    counted = False
    __slots__ = ()

    def __init__(self, channel: str) -> None:
        super().__init__([(channel, "")])

    def tell(self, error: PubSubError | None) -> None:
        pass
