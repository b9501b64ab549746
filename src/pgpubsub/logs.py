"""How pgpubsub logs: sentences for people, each with the name of its event and fields for programs.

    logger = EventLog("connection")
    logger.warning("connection_lost", "%(link)s connection lost: %(error)s", link="listening", error=error)

The logger is `pgpubsub.connection`, the message a sentence as ever. The record has the attributes `event_name` and one
for each field, as `extra=` would give it, so that formatters which write JSON find them. Names of events and fields are
documented (docs/observability.md) and stay as they are; sentences may be worded better.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

from pgpubsub.signals import was_raised_by_a_signal_handler

__all__ = ["EventLog", "JsonFormatter", "Names"]

RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
"""Attributes of every record, which are no fields."""


class Names(tuple[str, ...]):
    """Several names: one field, and in a sentence they stand with commas between.

    >>> "%(channels)s or %(channels)r" % {"channels": Names(["a", "b"])}
    "a, b or 'a', 'b'"
    """

    __slots__ = ()

    def __new__(cls, names: Iterable[str]) -> Self:
        return super().__new__(cls, names)

    def __str__(self) -> str:
        return ", ".join(self)

    def __repr__(self) -> str:
        return ", ".join(map(repr, self))


class EventLog:
    """A logger below `pgpubsub`.

    Args:
        name: what its name ends with.

    Its methods take the name of an event; a sentence, with its fields as `%(field)s`; `exc_info`, as in `logging`; and
    the fields: text, numbers, `Names`, and errors, which become text. An error, there or as `exc_info`, is the field
    `error`, with its class as `error_type`.

    They raise nothing but what is to end the program: an error of a handler or a filter goes to `sys.stderr`, unless
    `logging.raiseExceptions` is off.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"pgpubsub.{name}")

    def log(self, level: int, event: str, sentence: str, /, *, exc_info: Any = None, **fields: Any) -> None:
        """Of a level of `logging`."""
        self._tell(level, event, sentence, exc_info, fields)

    def info(self, event: str, sentence: str, /, *, exc_info: Any = None, **fields: Any) -> None:
        """What is as it should be."""
        self._tell(logging.INFO, event, sentence, exc_info, fields)

    def warning(self, event: str, sentence: str, /, *, exc_info: Any = None, **fields: Any) -> None:
        """What somebody may want to mend."""
        self._tell(logging.WARNING, event, sentence, exc_info, fields)

    def error(self, event: str, sentence: str, /, *, exc_info: Any = None, **fields: Any) -> None:
        """What does not mend itself, or is a fault of ours."""
        self._tell(logging.ERROR, event, sentence, exc_info, fields)

    def exception(self, event: str, sentence: str, /, **fields: Any) -> None:
        """The same in an `except` clause: with its traceback."""
        self._tell(logging.ERROR, event, sentence, True, fields)

    def _tell(self, level: int, event: str, sentence: str, exc_info: Any, fields: dict[str, Any]) -> None:
        try:
            if self._logger.isEnabledFor(level):
                self._hand_over(level, event, sentence, exc_info, fields)
        except Exception as error:
            if was_raised_by_a_signal_handler(error):
                raise
            _report(error)

    def _hand_over(self, level: int, event: str, sentence: str, exc_info: Any, fields: dict[str, Any]) -> None:
        told = {name: str(value) if isinstance(value, BaseException) else value for name, value in fields.items()}
        if (error := _error_of(fields, exc_info)) is not None:
            told = {"error": str(error), **told, "error_type": type(error).__name__}
        arguments = (told,) if told else ()
        if isinstance(exc_info, BaseException):
            exc_info = type(exc_info), exc_info, exc_info.__traceback__
        elif exc_info:
            exc_info = sys.exc_info()
        file, line, function, _ = self._logger.findCaller(stacklevel=4)
        record = self._logger.makeRecord(
            self._logger.name, level, file, line, sentence, arguments, exc_info or None, function
        )
        for name, value in {"event_name": event, **told}.items():
            vars(record).setdefault(name, value)  # unless the application's records have such an attribute already
        self._logger.handle(record)


def _report(error: Exception) -> None:
    """As the handlers of `logging` do it themselves. What the application does with a record must not end a connection
    half-way, or a hub."""
    if logging.raiseExceptions and sys.stderr is not None:
        with suppress(OSError, ValueError):  # it may be closed
            traceback.print_exception(error)


def _error_of(fields: dict[str, Any], exc_info: Any) -> BaseException | None:
    for error in (exc_info, fields.get("error")):
        if isinstance(error, BaseException):
            return error
    return sys.exc_info()[1] if exc_info else None


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON, whoever logged it.

    It is an object with `time` (ISO 8601, UTC), `level`, `logger`, `event` (null where a record has none), `message`
    and `fields`, and with `exception` where there is a traceback. A field that JSON cannot say, such as NaN, is text.

    >>> record = logging.makeLogRecord({"msg": "a gap", "event_name": "gap", "reason": "overflow"})
    >>> json.loads(JsonFormatter().format(record))["fields"]
    {'reason': 'overflow'}
    """

    def format(self, record: logging.LogRecord) -> str:
        """As a line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": self.event(record),
            "message": record.getMessage(),
            "fields": self.fields(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(told, allow_nan=False, default=str)
        except (TypeError, ValueError, RecursionError):
            told["fields"] = {str(name): _sayable(value) for name, value in told["fields"].items()}
            return json.dumps(told, allow_nan=False, default=str)

    def event(self, record: logging.LogRecord) -> str | None:
        """By which programs know it."""
        return getattr(record, "event_name", None)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What it has beside what every record has."""
        return {name: value for name, value in vars(record).items() if name not in RESERVED and name != "event_name"}


def _sayable(value: Any) -> Any:
    """A field as it is, or as text if it has what JSON has not: NaN, keys that are no text, itself."""
    try:
        json.dumps(value, allow_nan=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value
