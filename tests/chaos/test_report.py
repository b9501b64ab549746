"""What docs/reliability.md says is what is there."""

from __future__ import annotations

import ast
import re

from tests.chaos.report import SECTION
from tests.reliability import PAGE
from tests.system.processes import ROOT

LINK = re.compile(r"\[([^]]+)\]\(\.\./(tests/[\w/]+\.py)\)")


def test_the_figures_are_those_of_the_last_campaign() -> None:
    assert PAGE.read_text() == SECTION.page(), "python -m tests.chaos.report writes it anew"


def test_the_tests_that_it_names_are_there() -> None:
    named = LINK.findall(PAGE.read_text())
    assert len(named) > 40
    for name, file in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert file.endswith(name) or " " not in name or f"test_{name.replace(' ', '_')}" in functions, name
