"""How `pgpubsub serve` writes its log: text for people, or a line of JSON for each record, uvicorn's own included."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

from uvicorn.config import LOGGING_CONFIG

from pgpubsub.logs import JsonFormatter

__all__ = ["Lines", "log_config"]

OF_REQUESTS = ("client", "method", "path", "http", "status")
"""What uvicorn's access log has as arguments, in that order."""


class Lines(JsonFormatter):
    """As the library's, with what uvicorn says of requests as fields of the event `request`."""

    def event(self, record: logging.LogRecord) -> str | None:
        """By which programs know it."""
        return "request" if self._of_request(record) else super().event(record)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What it has beside what every record has."""
        if self._of_request(record):
            assert isinstance(record.args, tuple)
            return dict(zip(OF_REQUESTS, record.args, strict=True))
        fields = super().fields(record)
        fields.pop("color_message", None)  # the message again, for terminals
        return fields

    def _of_request(self, record: logging.LogRecord) -> bool:
        is_access = record.name == "uvicorn.access"
        return is_access and isinstance(record.args, tuple) and len(record.args) == len(OF_REQUESTS)


def log_config(format: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, of each worker: access to standard output, everything else to standard error.

    Raises:
        ValueError: `format` is neither text nor json.
    """
    if format not in ("text", "json"):
        raise ValueError(f"the format of the log is 'text' or 'json', not {format!r}")
    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["ours"] = {"format": "%(levelname)s:  %(name)s: %(message)s"}
    config["handlers"]["ours"] = {"class": "logging.StreamHandler", "formatter": "ours"}
    config["loggers"]["pgpubsub"] = {"handlers": ["ours"], "propagate": False}  # what clients are not told
    if format == "json":
        config["formatters"] = {name: {"()": "pgpubsub.web.records.Lines"} for name in config["formatters"]}
        config["loggers"]["psycopg"] = {"handlers": ["ours"], "propagate": False}
        config["root"] = {"handlers": ["ours"], "level": "WARNING"}
    return config
