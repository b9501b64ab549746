"""What is done with those blocks of Python that cannot be run as they stand, and why, in one place.

Where a page explains one thing after the other, its blocks are no programs: names come from the text, and loops go on
until the program ends. Those are read by mypy, with the names that the page takes for granted: so every function,
argument and attribute in them exists. Pages that are not named here are run from top to bottom (`snippets.Reader`).
"""

from __future__ import annotations

import re
import textwrap

from tests.e2e.snippets import Block

__all__ = ["DONE", "NEEDED", "NOT_CHECKED", "as_module", "how", "python"]

DONE = {
    "README.md": "run run run run run run elsewhere run",
    "docs/channel-layer.md": "read read",
    "docs/channels.md": "run read read read read read",
    "docs/django.md": "read read read",
    "docs/doctor.md": "run",
    "docs/gateway.md": "run run",
    "docs/groups.md": "read read read read read",
    "docs/hub.md": "read read read read read run",
    "docs/observability.md": "run read run run read",
    "docs/opentelemetry.md": "run read read read",
    "docs/sending.md": "read read read",
    "docs/sqlalchemy.md": "read read read read read read read",
    "docs/streams.md": "read run read read read read read read",
    "docs/testing.md": "read read read run",
    "docs/triggers.md": "read",
    "docs/migration/redis.md": "read run",
    "docs/web.md": "elsewhere elsewhere elsewhere elsewhere elsewhere elsewhere",
}
"""For each block of Python of these pages, in order: `run` as a program, `read` by mypy, or tried `elsewhere`, in
test_servers.py and test_web_frameworks.py."""

NOT_CHECKED = {
    ("docs/frames.md", "abnf"): "no parser of it is installed; the test vectors of that page say the same",
    ("docs/states.md", "mermaid"): "drawn from the code, with which tests/sim/test_states.py compares it",
    ("docs/opentelemetry.md", "text"): "what an example prints, which test_examples.py compares",
    ("docs/frames.md", "text"): "the form of a frame, and an algorithm in no programming language",
    ("docs/cli.md", "text"): "what commands print, shortened; tests/cli has it in full",
    ("docs/doctor.md", "text"): "the same of the doctor, of illnesses that a test server does not have",
}
"""Blocks that nobody checks, by page and language, and why."""

NEEDED = {"docs/migration/pygresql.md": ["pg"]}
"""What these pages import and not every machine can install. Without it they are skipped."""

COMMON = """\
from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pgpubsub
import pgpubsub.streams

hub: pgpubsub.Hub
conn: psycopg.Connection[Any]
"""

NAMES = {
    "docs/channels.md": """\
import msgspec
@dataclass
class Order:
    id: int
    note: str = ""
class Reading:
    def to_csv(self) -> str: ...
    @classmethod
    def from_csv(cls, text: str) -> Reading: ...
orders: pgpubsub.Channel[Order]
events: pgpubsub.Subscription[pgpubsub.Notify[Order] | pgpubsub.Undecodable]
""",
    "docs/django.md": """\
from django.http import StreamingHttpResponse
order: Any
""",
    "docs/groups.md": """\
orders: pgpubsub.Stream[Any]
engine: Any
def charge(entry: pgpubsub.Entry[Any]) -> None: ...
""",
    "docs/hub.md": """\
def rows() -> list[tuple[str, str]]: ...
def fetch_token() -> str: ...
loop: asyncio.AbstractEventLoop
""",
    "docs/observability.md": """\
import structlog
""",
    "docs/opentelemetry.md": """\
from pgpubsub.contrib.opentelemetry import Telemetry
telemetry: Telemetry
events: pgpubsub.Subscription
orders: pgpubsub.Stream[Any]
def handle(event: Any) -> None: ...
def charge(payload: Any) -> None: ...
""",
    "docs/sending.md": """\
from sqlalchemy.orm import Session
engine: Any
pool: Any
order: Any
transaction: Any
""",
    "docs/sqlalchemy.md": """\
import pgpubsub.triggers
import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
op: Any
context: Any
engine: sqlalchemy.Engine
class Base(DeclarativeBase): ...
class Order(Base):
    __tablename__ = "order"
    state: Mapped[str]
""",
    "docs/streams.md": """\
orders: pgpubsub.Stream[str]
def load_position(conn: Any) -> str: ...
def save_position(conn: Any, position: str) -> None: ...
def ship(conn: Any, payload: str) -> None: ...
""",
    "docs/testing.md": """\
class Cache:
    def __init__(self, hub: pgpubsub.Hub) -> None: ...
""",
}
"""What these pages take for granted beside `hub` and `conn`."""

AWAITED = re.compile(r"^(await |async (with|for) |.*= await )", re.MULTILINE)


def python(blocks: list[Block]) -> list[Block]:
    """The programs and fragments of a page, without the files that it has written."""
    return [block for block in blocks if block.language == "python" and block.title is None]


def how(page: str, blocks: list[Block]) -> dict[Block, str]:
    """What is done with each of them; `unsaid`, where DONE says nothing of a block of its page."""
    its = python(blocks)
    done = DONE[page].split() if page in DONE else ["run"] * len(its)
    return dict(zip(its, done + ["unsaid"] * len(its), strict=False))


def as_module(block: Block) -> str:
    """A block as the body of a function, in a module that has the names which the page takes for granted."""
    kind = "async def" if AWAITED.search(block.code) else "def"
    body = textwrap.indent(block.code, "    ")
    common = COMMON.replace("hub: pgpubsub.Hub", "hub: pgpubsub.AsyncHub") if "asyncio." in block.code else COMMON
    return f"{common}{NAMES.get(block.page, '')}\n\n{kind} block() -> None:\n{body}"
