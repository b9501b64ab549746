"""The context of a trace in headers: put there, and found there again, by whatever propagator is used.

Whoever may send can put anything into headers, and propagators may be the user's own, so what is no context is none,
and nothing is raised: no message is to be lost for want of a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, TextMapPropagator

__all__ = ["Carriers"]


class _Texts(Getter[Mapping[str, Any]]):
    """Of headers, those that are text."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if isinstance(value, str) else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


_TEXTS = _Texts()


class Carriers:
    """See the module. `propagator`: None for the global one, which is looked up each time."""

    def __init__(self, propagator: TextMapPropagator | None) -> None:
        self._propagator = propagator

    def fill(self, context: Context) -> dict[str, str]:
        """The headers that carry `context`."""
        carrier: dict[str, str] = {}
        try:
            (self._propagator or propagate.get_global_textmap()).inject(carrier, context)
        except Exception:
            return {}
        return carrier

    def read(self, headers: Mapping[str, Any] | None, beneath: Context) -> Context:
        """`beneath`, with what `headers` carry."""
        if not headers:
            return beneath
        try:
            return (self._propagator or propagate.get_global_textmap()).extract(headers, beneath, _TEXTS)
        except Exception:
            return beneath

    def span_context(self, headers: Mapping[str, Any] | None) -> trace.SpanContext | None:
        """That of the span which `headers` tell of."""
        context = trace.get_current_span(self.read(headers, Context())).get_span_context()
        return context if context.is_valid else None
