"""The channel layer, as Django Channels calls it: from any event loop, in any thread of the process."""

from __future__ import annotations

import asyncio
import atexit
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4
from weakref import WeakSet

import msgspec
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from pgpubsub.aio import AsyncHub
from pgpubsub.contrib.channels.exchange import Exchange
from pgpubsub.contrib.channels.inboxes import Inboxes, Waiter, address_of
from pgpubsub.contrib.channels.statements import SCHEMA, Statements
from pgpubsub.contrib.channels.writing import Write
from pgpubsub.contrib.django import hubs as databases
from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.errors import ConcurrentUse
from pgpubsub.hubs.addresses import Addresses
from pgpubsub.threads.loop_thread import LoopThread

__all__ = ["PostgresChannelLayer"]

MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes that PostgreSQL stores and sends without trouble. (A value's limit is 1 GB, copies included.)"""


class PostgresChannelLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer in PostgreSQL: `{"BACKEND": "pgpubsub.contrib.channels.PostgresChannelLayer", "CONFIG": {...}}`.

    It connects when it is first used, with five connections at most, and reconnects as long as it takes. Its tables are
    installed by the migration operation `pgpubsub.contrib.channels.operations.InstallChannelLayer`, or by
    `pgpubsub.contrib.channels.install`.

    Args:
        conninfo: libpq connection string, or a function that returns one. By default that of a database of Django's.
        using: which of Django's, by its alias.
        schema: where the tables are.
        expiry: seconds that a message waits for a receiver, 60 by default.
        group_expiry: seconds that a channel is in a group after it was added last; a day by default.
        capacity: messages that wait in a channel, at most; those of all channels of a process count together.
        channel_capacity: the same for channels by pattern, as for other layers.
        timeout: seconds that sending may take during an outage.
        max_message: bytes of a message, encoded as MessagePack, at most.
        libpq_keywords: connection parameters that override the others.

    Raises:
        ValueError, TypeError, pgpubsub.ConninfoError: an argument is not possible.
    """

    MAX_NAME_LENGTH = 101  # which is one more than they may have: the specification asks for 100
    invalid_name_error = BaseChannelLayer.invalid_name_error.replace("length < 100", "length < 101")
    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(
        self,
        conninfo: Any = None,
        *,
        using: str = "default",
        schema: str = SCHEMA,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        timeout: float = 30.0,
        max_message: int = MAX_MESSAGE,
        **libpq_keywords: Any,
    ) -> None:
        rules = BaseChannelLayer(expiry, capacity, self.compile_capacities(channel_capacity or {}))
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=rules.channel_capacity)
        for name, value in (("expiry", expiry), ("group_expiry", group_expiry), ("timeout", timeout)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
        for number in (capacity, max_message, *(channel_capacity or {}).values()):
            if not 0 < number < 2**31:
                raise ValueError(f"capacities and max_message are whole numbers from 1 to 2**31 - 1, not {number!r}")
        self.group_expiry = group_expiry
        self._max_message = max_message
        source = partial(databases.conninfo, using) if conninfo is None else conninfo
        addresses = Addresses(source, None, libpq_keywords)
        make_exchange = partial(
            Exchange,
            address=addresses.handling,
            statements=Statements(schema),
            expiry=expiry,
            group_expiry=group_expiry,
            patience=timeout,
        )

        def start() -> _Running:  # which does not keep this layer alive
            hub = AsyncHub(source, send_timeout=timeout, wait_for_primary=True, **libpq_keywords)
            return _Running(make_exchange(hub, inboxes=Inboxes(rules.get_capacity)))

        self._process = OfProcess(start)
        databases.before_test_databases(self)

    # -- channels

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel. It is stored when this returns.

        Raises:
            ChannelFull: so many wait there that there is no room.
            MessageTooLarge: it is longer than `max_message`.
            TypeError, ValueError: the name is not possible, or the message has something that cannot be sent.
            pgpubsub.NotLive: the database could not be reached within `timeout`, and nothing was sent.
            pgpubsub.SendUncertain: the connection broke, and nobody knows whether it was sent.
        """
        self.require_valid_channel_name(channel)
        await self._post(None, channel, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message of a channel. Of a name that ends with "!", the next of any channel of this process that
        nobody receives by its own name; "__asgi_channel__" in the message says which.

        A task that is cancelled has taken nothing. It waits through outages.

        Raises:
            pgpubsub.PubSubError: it can never come, as where the tables are not installed.
        """
        self.require_valid_channel_name(channel)
        running = self._process.get()
        inboxes, address = running.exchange.inboxes, address_of(channel)
        waiter = None
        while isinstance(found := inboxes.take(channel, waiter), Waiter):
            waiter = found
            try:
                if address not in running.attended:
                    await running.thread.call_for(running.exchange.attend, address)
                    if address.endswith("!"):
                        running.attended.add(address)  # for good
                await waiter.ready
            except BaseException:
                inboxes.leave(waiter)
                running.thread.post(running.exchange.give_back, address)
                raise
        message: dict[str, Any] = msgspec.msgpack.decode(found.payload, strict=False)
        if channel.endswith("!"):
            message["__asgi_channel__"] = found.channel
        return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """The name of a new channel that only this process receives on."""
        return f"{prefix}.{self._process.get().name}!{uuid4().hex}"

    # -- groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group, for `group_expiry` seconds from now. Raises as `send`."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._write("add", group, channel, address_of(channel), self.get_capacity(channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group, if it is in it. Raises as `send`."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._write("discard", group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to all members of a group but those that are over capacity. Raises as `send`, except for
        `ChannelFull`."""
        self.require_valid_group_name(group)
        await self._post(group, None, message)

    # -- all of it

    async def flush(self) -> None:
        """Remove all messages and all members of groups, for all processes."""
        await self._write("flush")

    async def close(self) -> None:
        """Close the connections. Whoever receives gets `pgpubsub.Closed`. Used again, it connects again."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, for threads."""
        if (running := self._process.take()) is not None:
            running.close()
            running.thread.join(5.0)

    async def _post(self, group: str | None, channel: str | None, message: dict[str, Any]) -> None:
        payload = self._encoded(message)
        place = (None, None) if channel is None else (address_of(channel), self.get_capacity(channel))
        await self._write("post", group, channel, *place, payload, size=len(payload))

    async def _write(self, kind: Any, *values: Any, size: int = 0) -> None:
        running = self._process.get()
        await running.thread.run_for(Write(running.exchange.writer, kind, *values, size=size))

    def _encoded(self, message: dict[str, Any]) -> bytes:
        if not isinstance(message, dict):
            raise TypeError(f"a message is a dict, not {type(message).__name__}")
        if "__asgi_channel__" in message:
            raise ValueError('"__asgi_channel__" is what the layer says to receivers: a message must not have it')
        try:
            payload = msgspec.msgpack.encode(message)
        except (TypeError, OverflowError, UnicodeEncodeError) as error:
            raise TypeError(f"a message has text, bytes, numbers, lists, dicts, booleans and None: {error}") from error
        if len(payload) > self._max_message:
            raise MessageTooLarge(f"the message has {len(payload)} bytes, and max_message is {self._max_message}")
        return payload


class _Running:
    """What a process has of a layer, until it closes it or forgets the layer."""

    def __init__(self, exchange: Exchange) -> None:
        self.name = uuid4().hex
        self.exchange = exchange
        self.attended: set[str] = set()
        self.thread = LoopThread(exchange.fail)
        self.thread.start()
        self.thread.post(exchange.start)
        _all.add(self)

    def close(self) -> None:
        """Begin to end. Does nothing in a forked child, whose it is not."""
        with suppress(ConcurrentUse):
            self.thread.check_process()
            self.thread.post(self.thread.finish, self.exchange.close)

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()


_all: WeakSet[_Running] = WeakSet()


@atexit.register
def _close_all() -> None:
    closing = list(_all)
    for running in closing:
        running.close()
    for running in closing:
        running.thread.join(2.0)
