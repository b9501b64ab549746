"""How what others send is tried out: whatever comes, it is accepted, or refused with a documented error, and takes no
more memory than is in proportion to it.

Each test is one function of one value that Hypothesis makes. The suite runs a few hundred values, always the same.
`make fuzz` runs the same functions for long: guided by coverage where atheris is installed, and otherwise with new
values each time (`python -m tests.fuzz --help`).
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["any_json", "any_text", "bounded", "fuzzed", "json_text", "mutated"]

EXAMPLES = int(os.environ.get("PGPUBSUB_FUZZ_EXAMPLES", "0"))
"""0: those of the suite, which are always the same."""

fuzzed = settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
"""For every test here."""

SPARE, TIMES = 1 << 20, 50
"""Bytes that anything may take, and for each byte of what came."""


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Make sure that what came, `size` bytes, takes no more memory than is in proportion to it."""
    outer = tracemalloc.is_tracing()
    if not outer:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not outer:
            tracemalloc.stop()
    assert peak - before < SPARE + TIMES * size, f"{peak - before:,} bytes for {size:,}"


any_text = st.text(st.characters(), max_size=60) | st.text(
    "\0\r\n\ud800\udcff\u2028é🐘'\"\\ *./:;,=%+-_09aZ", max_size=60
)
"""Text with everything that text may have in Python, also what no UTF-8 has."""

nested = st.integers(1, 20_000).flatmap(
    lambda depth: st.sampled_from(
        ["[" * depth, "[" * depth + "]" * depth, '{"a":' * depth, '{"a":' * depth + "}" * depth]
    )
)
numbers = st.sampled_from(["1e400", "NaN", "-Infinity", "9" * 400, "9" * 5000, "-0", "1e-400", "01", "1_0"])

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
"""Values that Python's JSON writes."""


@st.composite
def mutated(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """One of `values`, cut, lengthened, or with some of it changed."""
    text = draw(values)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(any_text | st.just(text[start:end] * 2)) + text[end:]
    return text


json_text = any_json.map(json.dumps) | mutated(any_json.map(json.dumps)) | nested | numbers | any_text
"""JSON, almost JSON, and what only looks like it."""
