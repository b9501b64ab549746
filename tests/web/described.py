"""The frames of WebSockets as docs/gateway.asyncapi.yaml has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

__all__ = ["SCHEMAS", "check_frame", "validator"]

FILE = Path(__file__).parents[2] / "docs" / "gateway.asyncapi.yaml"

DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())

SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

_validators = {
    name: jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )
    for name in SCHEMAS
}


def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Of frames of this type."""
    return _validators[kind]


def check_frame(frame: dict[str, Any]) -> None:
    """Make sure that this is one of them, and as it is described."""
    _validators[frame["type"]].validate(frame)
