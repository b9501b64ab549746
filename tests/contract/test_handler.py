"""What `NotificationHandler` does, whatever connection it is given."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ChannelNameError, ConnectionLost, NotificationHandler, PubSub, PubSubError, UnexpectedChannel
from tests.contract.conftest import connect_with, run_on
from tests.contract.test_pubsub import terminate


class Recorder:
    """A callback that keeps copies of what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any] | None] = []
        self.arguments: list[dict[str, Any] | None] = []

    def __call__(self, arg_dict: dict[str, Any] | None) -> None:
        self.arguments.append(arg_dict)
        self.calls.append(None if arg_dict is None else dict(arg_dict))

    @property
    def extras(self) -> list[str | None]:
        return [None if call is None else call["extra"] for call in self.calls]


@pytest.fixture
def db(kind: str, dsn: str, connect_raw: Callable[[str], Any]) -> Iterator[Any]:
    """What a handler is given: a `PubSub`, or a driver's connection as it is."""
    if kind != "connect()":
        yield connect_raw(kind)
        return
    with pgpubsub.connect(dsn) as pubsub:
        yield pubsub


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def raw(db: Any) -> Any:
    return db.conn if isinstance(db, PubSub) else db


def pid_of(db: Any) -> int:
    return db.backend_pid if isinstance(db, PubSub) else PubSub(db).backend_pid


def listening_to(db: Any) -> set[str]:
    """What the server says the connection listens to."""
    conn = raw(db)
    if hasattr(conn, "query"):
        return {row[0] for row in conn.query("SELECT pg_listening_channels()").getresult()}
    cursor = conn.cursor()
    cursor.execute("SELECT pg_listening_channels()")
    return {row[0] for row in cursor.fetchall()}


def is_listening(handler: NotificationHandler) -> bool:
    """The attribute, in a way that lets the type checker expect it to change."""
    return handler.listening


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


def test_its_arguments_are_its_attributes_and_it_sends_nothing_by_itself(
    db: Any, recorder: Recorder, channel: str
) -> None:
    given: dict[str, Any] = {"foo": "bar"}
    handler = NotificationHandler(db, channel, recorder, given, 5, "enough")
    assert handler.db is db
    assert (handler.event, handler.stop_event, handler.callback) == (channel, "enough", recorder)
    assert handler.arg_dict is given
    assert (handler.timeout, handler.listening) == (5, False)
    for stop_event in (None, ""):
        plain = NotificationHandler(db, channel, recorder, stop_event=stop_event)
        assert (plain.stop_event, plain.arg_dict, plain.timeout) == (f"stop_{channel}", {}, None)
    assert listening_to(db) == set()


def test_it_calls_back_until_the_stop_event(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, {"foo": "bar"})
    handler.listen()
    assert is_listening(handler)
    assert listening_to(db) == {channel, f"stop_{channel}"}
    handler.notify(payload="it's one")
    handler.notify()
    handler.notify(stop=True, payload="enough")
    handler.notify(payload="too late")
    handler()
    pid = pid_of(db)
    assert recorder.calls == [
        {"foo": "bar", "pid": pid, "event": channel, "extra": "it's one"},
        {"foo": "bar", "pid": pid, "event": channel, "extra": ""},
        {"foo": "bar", "pid": pid, "event": f"stop_{channel}", "extra": "enough"},
    ]
    assert not handler.listening
    assert listening_to(db) == set()


def test_every_callback_receives_the_one_arg_dict(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0)
    handler.listen()
    handler.notify(payload="1")
    handler.notify(payload="2")
    handler()
    assert all(argument is handler.arg_dict for argument in recorder.arguments)
    assert recorder.extras == ["1", "2"]


def test_it_unlistens_before_the_callback_gets_the_stop_event(db: Any, channel: str) -> None:
    states: list[bool] = []
    handler = NotificationHandler(db, channel, lambda arg_dict: states.append(handler.listening))
    handler.listen()
    handler.notify()
    handler.notify(stop=True)
    handler()
    assert states == [True, False]


def test_polling_handles_what_has_arrived_and_goes_on_listening(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0)
    handler()
    assert recorder.calls == []
    assert handler.listening
    handler.notify(payload="1")
    handler()
    handler()
    assert recorder.extras == ["1"]
    handler.notify(stop=True)
    handler()
    assert not handler.listening


def test_a_timeout_ends_it_with_none(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0.05)
    handler()
    assert recorder.calls == [None]
    assert not handler.listening
    assert listening_to(db) == set()


def test_the_timeout_is_for_each_notification(db: Any, recorder: Recorder, channel: str) -> None:
    """An idle time, which what arrives for somebody else does not prolong and what arrives for us does."""
    handler = NotificationHandler(db, channel, recorder, timeout=0.5)
    handler.listen()
    handler.notify(payload="1")
    handler()
    assert recorder.extras == ["1", None]


def test_a_negative_timeout_is_an_error(db: Any, recorder: Recorder, channel: str) -> None:
    with pytest.raises(ValueError, match="a timeout cannot be -1"):
        NotificationHandler(db, channel, recorder, timeout=-1)()


def test_what_was_buffered_before_the_wait_is_handled(
    db: Any, recorder: Recorder, admin: psycopg.Connection[Any], channel: str
) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=1)
    handler.listen()
    admin.execute("SELECT pg_notify(%s, 'buffered')", [channel])
    run_on(raw(db), "SELECT pg_sleep(0.05)")
    admin.execute("SELECT pg_notify(%s, 'x')", [f"stop_{channel}"])
    handler()
    assert recorder.extras == ["buffered", "x"]


@pytest.mark.parametrize("event", ['quo"te', "it's", "Hello, World!", "a;b", '"; DROP TABLE x; --', "日本語"])
def test_any_text_is_an_event_and_a_payload(db: Any, recorder: Recorder, event: str) -> None:
    handler = NotificationHandler(db, event, recorder, timeout=0)
    handler.listen()
    handler.notify(payload=event)
    handler()
    assert recorder.calls == [{"pid": pid_of(db), "event": event, "extra": event}]
    handler.unlisten()


def test_a_stop_event_that_would_be_too_long_is_refused_at_construction(db: Any, recorder: Recorder) -> None:
    NotificationHandler(db, "x" * 58, recorder)
    with pytest.raises(ChannelNameError, match=r"64 bytes.*stop event of 'x+'.*stop_event="):
        NotificationHandler(db, "x" * 59, recorder)
    with pytest.raises(ChannelNameError, match="64 bytes"):
        NotificationHandler(db, "x" * 64, recorder, stop_event="s")
    handler = NotificationHandler(db, "x" * 63, recorder, stop_event="s")
    handler.listen()
    handler.notify(stop=True)
    handler()
    assert [call and call["event"] for call in recorder.calls] == ["s"]


def test_it_sends_only_while_it_listens(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0)
    handler.notify(payload="unheard")
    handler.notify(stop=True)
    handler.listen()
    handler()
    assert recorder.calls == []
    assert handler.listening


def test_it_sends_on_another_connection(
    db: Any, kind: str, recorder: Recorder, dsn: str, connect_raw: Callable[[str], Any], channel: str
) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=5)
    handler.listen()
    sender = pgpubsub.connect(dsn) if kind == "connect()" else connect_raw(kind)
    handler.notify(sender, payload="1")
    if isinstance(sender, PubSub):
        handler.notify(sender.conn, payload="2")
    handler.notify(db=sender, stop=True)
    handler()
    assert {call["pid"] for call in recorder.calls if call} == {pid_of(sender)} != {pid_of(db)}
    sender.close()


def test_sending_on_another_connection_takes_nothing_from_it(
    db: Any, recorder: Recorder, connect_raw: Callable[[str], Any], admin: psycopg.Connection[Any], channel: str
) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0)
    handler.listen()
    sender = connect_raw("psycopg3")
    sender.execute("LISTEN theirs")
    admin.execute("NOTIFY theirs, 'pending'")
    sender.execute("SELECT pg_sleep(0.05)")
    handler.notify(sender, payload="x")
    assert [notify.payload for notify in sender.notifies(timeout=0)] == ["pending"]


def test_an_error_in_the_callback_leaves_the_rest_for_the_next_call(db: Any, channel: str) -> None:
    handled: list[str] = []

    def callback(arg_dict: dict[str, Any] | None) -> None:
        assert arg_dict is not None
        handled.append(arg_dict["extra"])
        if arg_dict["extra"] == "bad":
            raise LookupError("from the callback")

    handler = NotificationHandler(db, channel, callback, timeout=0)
    handler.listen()
    for payload in ("good", "bad", "better"):
        handler.notify(payload=payload)
    with pytest.raises(LookupError):
        handler()
    assert handler.listening
    handler()
    assert handled == ["good", "bad", "better"]


def test_an_unexpected_channel_is_our_error_and_the_drivers(
    db: Any, recorder: Recorder, admin: psycopg.Connection[Any], channel: str
) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=5)
    run_on(raw(db), 'LISTEN "somebody else"')
    handler.listen()
    admin.execute("SELECT pg_notify(%s, 'expected')", [channel])
    admin.execute("SELECT pg_notify('somebody else', '')")
    message = f'Listening for "{channel}" and "stop_{channel}", but notified of "somebody else"'
    with pytest.raises(PubSubError) as caught:
        handler()
    assert str(caught.value) == message
    assert isinstance(caught.value, UnexpectedChannel)
    assert [kind.__name__ for kind in type(caught.value).__mro__].count("DatabaseError") == 1
    assert recorder.extras == ["expected"]
    assert not handler.listening
    handler.timeout = 0
    handler()
    assert recorder.extras == ["expected"]


def test_handlers_on_one_connection_wait_for_each_others_messages(db: Any, new_channel: Callable[[], str]) -> None:
    one, other, both = Recorder(), Recorder(), new_channel()
    first = NotificationHandler(db, new_channel(), one, timeout=0)
    second = NotificationHandler(db, new_channel(), other, timeout=0)
    third = NotificationHandler(db, first.event, other, timeout=0, stop_event=both)
    for handler in (first, second, third):
        handler.listen()
    second.notify(payload="for the second")
    first.notify(payload="for the first and the third")
    first()
    assert one.extras == ["for the first and the third"]
    assert other.extras == []
    first.unlisten()
    assert first.event in listening_to(db)
    second()
    third()
    assert other.extras == ["for the second", "for the first and the third"]


def test_a_pubsub_and_a_handler_share_a_connection(db: Any, recorder: Recorder, new_channel: Callable[[], str]) -> None:
    pubsub = db if isinstance(db, PubSub) else PubSub(db)
    for make in (pubsub.notification_handler, pubsub.connection_handler):
        handler = make(new_channel(), recorder, timeout=0)
        ours = new_channel()
        pubsub.listen(ours)
        handler.listen()
        handler.notify(payload="for the handler")
        pubsub.notify(ours, "for the pubsub")
        assert [event.payload for event in pubsub.get_events()] == ["for the pubsub"]
        handler()
        handler.unlisten()
    assert recorder.extras == ["for the handler"] * 2


def test_what_was_not_handled_is_gone_after_unlisten(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder, timeout=0)
    handler.listen()
    handler.notify(payload="never handled")
    handler.unlisten()
    handler.unlisten()
    handler()
    assert recorder.calls == []


def test_it_unlistens_when_it_is_deleted(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder)
    handler.listen()
    del handler
    gc.collect()
    assert listening_to(db) == set()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_it_may_be_deleted_after_its_connection_was_closed(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder)
    handler.listen()
    db.close()
    del handler
    with pytest.raises(ChannelNameError):
        NotificationHandler(db, "", recorder)
    gc.collect()


def test_close_closes_the_connection(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder)
    handler.listen()
    handler.close()
    handler.close()
    assert handler.db is None
    assert not handler.listening
    handler()
    handler.listen()
    handler.unlisten()
    handler.notify(payload="x")
    with pytest.raises(Exception, match=r"closed|not valid|clos"):
        run_on(raw(db), "SELECT 1")


def test_close_from_another_thread_ends_the_wait(db: Any, recorder: Recorder, channel: str) -> None:
    handler = NotificationHandler(db, channel, recorder)
    thread = in_thread(handler)
    eventually(lambda: handler.listening)
    handler.close()
    thread.join(10)
    assert not thread.is_alive()
    assert recorder.calls == []


def test_it_may_be_closed_by_its_callback(db: Any, channel: str) -> None:
    handler = NotificationHandler(db, channel, lambda arg_dict: handler.close())
    handler.listen()
    handler.notify()
    handler()
    assert handler.db is None


def test_a_handler_without_a_connection_does_nothing(recorder: Recorder) -> None:
    handler = NotificationHandler(None, "event", recorder)
    handler()
    handler.listen()
    handler.notify(payload="x")
    handler.close()
    assert not handler.listening


@pytest.mark.parametrize("timeout", [0, 5, None])
def test_a_lost_connection_is_an_error_also_when_polling(
    kind: str, dsn: str, recorder: Recorder, admin: psycopg.Connection[Any], channel: str, timeout: float | None
) -> None:
    db = pgpubsub.connect(dsn, reconnect=False) if kind == "connect()" else connect_with(kind, dsn)
    handler = NotificationHandler(db, channel, recorder, timeout=timeout)
    handler.listen()
    handler.notify(payload="before")
    terminate(admin, pid_of(db))
    with pytest.raises(ConnectionLost):
        poll_or_call(handler, polls=1000 if timeout == 0 else 1)
    with pytest.raises(ConnectionLost):
        handler()
    assert recorder.extras == ["before"]
    handler.close()


def poll_or_call(handler: NotificationHandler, polls: int) -> None:
    """A poll may come before the news."""
    for _ in range(polls):
        handler()


def test_it_goes_on_after_a_reconnection(
    dsn: str, recorder: Recorder, admin: psycopg.Connection[Any], channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        handler = pubsub.notification_handler(channel, recorder)
        handler.listen()
        handler.notify(payload="before")
        lost = pubsub.backend_pid
        terminate(admin, lost)
        thread = in_thread(handler)
        eventually(lambda: pubsub.gaps == 1)
        admin.execute("SELECT pg_notify(%s, 'after')", [channel])
        admin.execute("SELECT pg_notify(%s, 'stop')", [f"stop_{channel}"])
        thread.join(10)
    assert not thread.is_alive()
    assert recorder.extras == ["before", "after", "stop"]
    assert [record.name for record in caplog.records if "may have been lost" in record.message] == ["pgpubsub.gap"]


def test_a_deleted_handler_leaves_nothing_to_its_neighbours(
    db: Any, recorder: Recorder, admin: psycopg.Connection[Any], new_channel: Callable[[], str]
) -> None:
    """What had been sent to it is nobody else's unexpected notification."""
    deleted = NotificationHandler(db, new_channel(), print)
    neighbour = NotificationHandler(db, new_channel(), recorder, timeout=0)
    deleted.listen()
    neighbour.listen()
    admin.execute("SELECT pg_notify(%s, 'for nobody'), pg_notify(%s, 'x')", [deleted.event, neighbour.event])
    del deleted
    gc.collect()

    def heard() -> bool:
        neighbour()
        return bool(recorder.calls)

    eventually(heard)
    assert recorder.extras == ["x"]
    assert neighbour.listening


def test_a_handler_deleted_inside_a_transaction_is_seen_off_after_it(
    db: Any, recorder: Recorder, new_channel: Callable[[], str]
) -> None:
    pubsub = db if isinstance(db, PubSub) else PubSub(db)
    handler = NotificationHandler(db, new_channel(), recorder)
    event = handler.event
    handler.listen()
    run_on(raw(db), "BEGIN")
    del handler
    gc.collect()
    assert pubsub.get_event() is None
    run_on(raw(db), "ROLLBACK")
    assert pubsub.get_event() is None
    assert listening_to(db) == set()
    pubsub.notify(event)
    assert pubsub.get_event() is None
