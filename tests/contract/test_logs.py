"""What programs find in log records, of real happenings."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from math import inf, nan
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ConnectionFailed, Gap
from pgpubsub.logs import RESERVED, EventLog, JsonFormatter, Names
from tests.contract.faces import AnyHub, listening_pid
from tests.contract.groups import process
from tests.contract.streams import open_stream
from tests.contract.test_handler import eventually
from tests.contract.test_pubsub import terminate

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]


class Kept(logging.Handler):
    """All records, each as a line of JSON, read again."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.records.append(json.loads(line))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["event"] == event]


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger, kept = logging.getLogger("pgpubsub"), Kept()
    logger.addHandler(kept)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield kept
    logger.setLevel(level)
    logger.removeHandler(kept)


def test_a_lost_connection_says_which_and_why(new_hub: NewHub, admin: Admin, channel: str, kept: Kept) -> None:
    with new_hub() as hub, hub.subscribe(channel) as events:
        terminate(admin, listening_pid(admin))
        gap = events.get(timeout=20)
        assert isinstance(gap, Gap)
    (lost,) = kept.of("connection_lost")
    assert (lost["logger"], lost["level"]) == ("pgpubsub.connection", "WARNING")
    assert lost["message"] == f"listening connection lost: {lost['fields']['error']}"
    assert lost["fields"]["link"] == "listening"
    assert lost["fields"]["error_type"] == "ConnectionLost"
    assert "terminating connection" in lost["fields"]["error"]
    (again,) = kept.of("listening_again")
    assert again["logger"] == "pgpubsub.gap"
    assert again["fields"] == {"reason": "connection_lost", "channels": [channel], "detail": gap.detail}
    assert again["message"] == f"listening again, channels: {channel}"


def test_a_gap_that_nobody_asked_for_has_its_channels_and_since_when(
    dsn: str, admin: Admin, new_channel: Callable[[], str], kept: Kept
) -> None:
    channels = [new_channel(), new_channel()]
    with pgpubsub.connect(dsn) as pubsub:
        for channel in channels:
            pubsub.listen(channel)
        terminate(admin, pubsub.backend_pid)
        eventually(lambda: pubsub.get_event() or kept.of("gap"), 20)
    (gap,) = kept.of("gap")
    assert gap["fields"]["channels"] == channels
    assert gap["fields"]["reason"] == "connection_lost"
    assert gap["message"].startswith(f"notifications may have been lost on {', '.join(channels)} since 20")
    assert gap["fields"]["since"] in gap["message"]
    (lost,) = kept.of("connection_lost")
    assert lost["fields"]["link"] == "PubSub"


def test_an_attempt_that_fails_says_why(new_hub: NewHub, kept: Kept) -> None:
    with pytest.raises(ConnectionFailed):
        new_hub("host=127.0.0.1 port=1").__enter__()
    links = {record["fields"]["link"] for record in kept.of("connect_failed")}
    assert links
    assert links <= {"listening", "sending"}, "whichever was first"
    assert all(record["fields"]["error_type"] == "ConnectionFailed" for record in kept.of("connect_failed"))


def test_a_handler_that_fails_says_for_whom_and_what(installed: str, new_hub: NewHub, channel: str, kept: Kept) -> None:
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        id = stream.append("seventeen")

        def handle(entry: Any) -> None:
            int(entry.payload)

        process(stream, "billing", handle, follow=False, attempts=2, backoff=0)
    first, second = kept.of("handling_failed")
    assert first["fields"] | {"attempt": 2} == second["fields"]
    assert first["fields"] == {
        "what": f"entry {id}",
        "stream": channel,
        "group": "billing",
        "entries": [id],
        "attempt": 1,
        "error": "ValueError: invalid literal for int() with base 10: 'seventeen'",
        "error_type": "ValueError",
    }
    assert first["exception"].startswith("Traceback")
    assert f"entry {id} failed, attempt 1: ValueError" in first["message"]


def test_an_observer_that_fails_has_its_traceback(new_hub: NewHub, kept: Kept) -> None:
    def observe(_: object) -> None:
        raise RuntimeError("no")

    with new_hub(observe=observe):
        pass
    record = kept.of("observer_failed")[0]
    assert record["level"] == "ERROR"
    assert record["fields"] == {"error": "no", "error_type": "RuntimeError"}
    assert "in observe" in record["exception"]


# -- how


def test_a_record_says_where_it_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    EventLog("test").warning("happened", "it happened to %(channels)s", channels=Names(["a", "b"]))
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("pgpubsub.test", "it happened to a, b")
    assert record.filename == "test_logs.py"
    assert record.funcName == "test_a_record_says_where_it_was_logged"
    assert record.__dict__["event_name"] == "happened"
    assert record.__dict__["channels"] == ("a", "b")


def test_percent_signs_and_braces_in_fields_stay_as_they_are(kept: Kept) -> None:
    EventLog("test").warning("happened", "because of %(error)s", error=ValueError("100 % {of} %(it)s"))
    assert kept.records[0]["message"] == "because of 100 % {of} %(it)s"


def test_what_is_not_asked_for_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    class Expensive:
        def __str__(self) -> str:
            raise AssertionError("it was made")

    with caplog.at_level(logging.WARNING, "pgpubsub.test"):
        EventLog("test").info("happened", "because of %(what)s", what=Expensive())


@pytest.mark.parametrize("taken", ["stream", "event_name", "error_type"])
def test_an_application_whose_records_have_such_an_attribute_keeps_it_and_gets_all_others(
    caplog: pytest.LogCaptureFixture, taken: str
) -> None:
    factory = logging.getLogRecordFactory()

    def with_its_own(*args: Any, **keywords: Any) -> logging.LogRecord:
        record = factory(*args, **keywords)
        setattr(record, taken, "the application's")
        return record

    logging.setLogRecordFactory(with_its_own)
    try:
        EventLog("test").warning("happened", "of stream %(stream)r: %(error)s", stream="orders", error=ValueError("no"))
    finally:
        logging.setLogRecordFactory(factory)
    (record,) = caplog.records
    assert record.getMessage() == "of stream 'orders': no"
    ours = {"event_name": "happened", "stream": "orders", "error": "no", "error_type": "ValueError"}
    assert {name: vars(record)[name] for name in ours} == {**ours, taken: "the application's"}


def test_a_field_that_every_record_has_is_only_in_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    EventLog("test").warning("happened", "it is called %(name)s", name="orders")
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("pgpubsub.test", "it is called orders")


class Failing(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.called = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.called += 1
        raise KeyError("no such channel")


@pytest.fixture
def failing() -> Iterator[Failing]:
    failing = Failing()
    logging.getLogger("pgpubsub").addHandler(failing)
    yield failing
    logging.getLogger("pgpubsub").removeHandler(failing)


def test_a_handler_that_fails_disturbs_nothing_and_is_told(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    EventLog("test").warning("happened", "of stream %(stream)r", stream="orders")
    assert failing.called == 1
    assert capsys.readouterr().err.endswith("KeyError: 'no such channel'\n")


def test_a_handler_that_fails_is_not_told_where_nobody_wants_to_know(
    failing: Failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    EventLog("test").warning("happened", "of stream %(stream)r", stream="orders")
    assert (failing.called, capsys.readouterr().err) == (1, "")


def test_a_signal_handler_that_raises_while_something_is_logged_is_heard() -> None:
    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGUSR1)

    def handler(number: int, frame: object) -> None:
        raise TimeoutError("the program's own")

    before, interrupting = signal.signal(signal.SIGUSR1, handler), Interrupting()
    logging.getLogger("pgpubsub.test").addHandler(interrupting)
    try:
        with pytest.raises(TimeoutError, match="the program's own"):
            EventLog("test").warning("happened", "it happened")
    finally:
        logging.getLogger("pgpubsub.test").removeHandler(interrupting)
        signal.signal(signal.SIGUSR1, before)


def test_a_hub_survives_a_handler_that_fails(new_hub: NewHub, admin: Admin, channel: str, failing: Failing) -> None:
    with new_hub(heartbeat=None) as hub, hub.subscribe(channel) as events:
        terminate(admin, listening_pid(admin))
        assert isinstance(events.get(timeout=20), Gap)
        hub.notify(channel, "17")
        assert getattr(events.get(timeout=20), "payload", None) == "17"
    assert failing.called


def test_a_record_of_an_error_has_its_traceback(kept: Kept) -> None:
    log = EventLog("test")
    try:
        raise LookupError("no such order")
    except LookupError as error:
        log.exception("happened", "in a clause")
        log.warning("happened", "given: %(error)s", exc_info=error, error=error)
        log.warning("happened", "without: %(error)s", error=error)
    first, second, third = kept.records
    assert [one["fields"]["error_type"] for one in kept.records] == ["LookupError"] * 3
    assert first["exception"] == second["exception"]
    assert first["exception"].endswith("LookupError: no such order")
    assert "exception" not in third


def test_what_every_record_has_is_no_field() -> None:
    record = logging.getLogger("elsewhere").makeRecord("elsewhere", 20, "file", 1, "text %s", ("x",), None)
    told = json.loads(JsonFormatter().format(record))
    assert told == {
        "time": told["time"],
        "level": "INFO",
        "logger": "elsewhere",
        "event": None,
        "message": "text x",
        "fields": {},
    }
    assert set(vars(record)) <= RESERVED


def test_fields_that_json_cannot_say_are_text() -> None:
    around: list[Any] = []
    around.append(around)
    told: dict[Any, Any] = {"nan": nan, "inside": [1.5, -inf], "keys": {(1, 2): 3}, "around": around, ("no", "name"): 1}
    fine: dict[Any, Any] = {"keys of numbers": {1: 2}, "others": {"of": [{3}, None, 1.5]}}
    line = JsonFormatter().format(logging.makeLogRecord({"msg": "odd", "event_name": "happened", **told, **fine}))
    assert "\n" not in line
    read = json.loads(line, parse_constant=pytest.fail)
    assert (read["message"], read["event"]) == ("odd", "happened")
    assert read["fields"] == {
        "nan": "nan",
        "inside": "[1.5, -inf]",
        "keys": "{(1, 2): 3}",
        "around": "[[...]]",
        "('no', 'name')": 1,
        "keys of numbers": {"1": 2},
        "others": {"of": ["{3}", None, 1.5]},
    }
