"""Every block of code of the README and of the manual, and `examples/event_loop.py`, done as they stand."""

from __future__ import annotations

import configparser
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click
import psycopg
import pytest
import typer
import yaml
from psycopg.conninfo import conninfo_to_dict

from pgpubsub import GapReason
from pgpubsub.cli.app import app
from pgpubsub.core.buffer import Overflow
from tests.e2e.fragments import DONE, NEEDED, NOT_CHECKED, as_module, how, python
from tests.e2e.snippets import Block, Reader, blocks, free_port, node
from tests.system.pgbouncer import PgBouncer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL = {str(page.relative_to(ROOT)): blocks(page) for page in PAGES}
BLOCKS = [block for found in ALL.values() for block in found]
GATEWAY, POOLER = "8008", "6432"
"""The ports on which the gateway and PgBouncer are in the manual; here they are some that are free."""
RUN = {"python", "sh", "sql", "text"}


@pytest.fixture(scope="module")
def environment(dsn: str) -> dict[str, str]:
    """The examples connect to the database `test` as `postgres`; libpq's environment says where that is."""
    part = conninfo_to_dict(dsn)
    new_database(dsn, "test", keep=True)
    names = {"PGHOST": "host", "PGPORT": "port", "PGPASSWORD": "password", "PGUSER": "user"}
    return {**os.environ} | {variable: str(part[name]) for variable, name in names.items() if part.get(name)}


def new_database(dsn: str, name: str, *, keep: bool = False) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        there = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if there and not keep:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        if not (there and keep):
            admin.execute(f"CREATE DATABASE {name}".encode())


def run(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error::DeprecationWarning", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return re.sub(r"Notify\(\d+,", "Notify(9425,", done.stdout)


# -- what is run


def is_run(block: Block) -> bool:
    """Whether a reader does what it says. Shell commands of the pages in fragments.py are looked at, and not run."""
    if block.language == "python" and block.title is None:
        return how(block.page, ALL[block.page])[block] == "run"
    return block.language in RUN and not is_reference(block.page)


def is_reference(page: str) -> bool:
    """Whether a page explains one thing after the other, so that only its programs are run."""
    return page == "README.md" or (page.startswith("docs/") and page.count("/") == 1 and page not in GUIDED)


GUIDED = {"docs/index.md", "docs/tutorial.md", "docs/classic.md"}


@pytest.mark.timeout(600)  # a page starts up to thirty programs
@pytest.mark.parametrize("page", [page for page, found in ALL.items() if any(map(is_run, found))])
def test_what_a_page_says_can_be_done(page: str, environment: dict[str, str], dsn: str, tmp_path: Path) -> None:
    for module in NEEDED.get(page, ()):
        pytest.importorskip(module)
    databases = list(dict.fromkeys(re.findall(r"dbname=(\w+)", "".join(block.code for block in ALL[page])))) or ["test"]
    for database in databases:  # others may be at work in `test`, where the server is not ours alone
        new_database(dsn, database, keep=database == "test" and "PGPUBSUB_TEST_DSN" in os.environ)
    its = list(filter(is_run, ALL[page]))
    with ExitStack() as stack:
        ports = {GATEWAY: free_port()}
        if any(POOLER in block.code for block in its):
            ports[POOLER] = stack.enter_context(PgBouncer(dsn, "transaction")).port
        reader = stack.enter_context(Reader(tmp_path, environment, databases[0], ports))
        for block in its:
            reader.do(block)


def test_the_examples_of_the_readme_are_short() -> None:
    assert max(block.code.count("\n") for block in ALL["README.md"] if block.shown) <= 15


def test_the_event_loop_example_follows_reconnections(environment: dict[str, str]) -> None:
    assert run(str(ROOT / "examples" / "event_loop.py"), environment=environment).splitlines() == [
        "Notify(9425, 'news', 'one')",
        "a gap on news",
        "Notify(9425, 'news', 'two')",
        "a gap on news",
        "Notify(9425, 'news', 'three')",
    ]


def test_the_example_of_traces_prints_what_the_manual_says(environment: dict[str, str]) -> None:
    program = run(str(ROOT / "examples" / "opentelemetry_orders.py"), environment=environment)
    assert f"```text\n{program}```" in (ROOT / "docs" / "opentelemetry.md").read_text()


# -- what is read


def test_each_block_of_python_is_run_or_said_not_to_be() -> None:
    for page, done in DONE.items():
        assert len(done.split()) == len(python(ALL[page])), f"{page} has another number of blocks: see fragments.py"


@pytest.mark.timeout(300)
def test_what_is_not_run_is_made_of_what_there_is(tmp_path: Path) -> None:
    """By mypy, with the names that its page takes for granted."""
    for page, found in ALL.items():
        for block, done in how(page, found).items():
            if done == "read":
                (tmp_path / f"{Path(page).stem.replace('-', '_')}_{block.line}.py").write_text(as_module(block))
    options = [
        "--check-untyped-defs",
        "--ignore-missing-imports",
        "--disable-error-code=empty-body",
        "--disable-error-code=union-attr",
    ]
    command = [sys.executable, "-m", "mypy", "--config-file=", *options, str(tmp_path)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    checked = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=ROOT, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_block_is_checked_or_said_not_to_be() -> None:
    for block in BLOCKS:
        checked = is_run(block) or block.language in {*READERS, "python", "sql"}
        assert checked != ((block.page, block.language) in NOT_CHECKED), f"{block}: who checks {block.language!r}?"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sql" and not is_run(block)], ids=str)
def test_sql_that_is_not_run_is_sql(block: Block, dsn: str) -> None:
    """PL/pgSQL reads all statements of a block before it begins with the first."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"DO $check$ BEGIN IF false THEN {block.code} END IF; END $check$".encode())


def shell(code: str) -> None:
    """It is shell, what it installs can be installed, and the program has the commands and options that are named."""
    subprocess.run(["bash", "-n", "-c", code], check=True, timeout=10)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"pip install '?pgpubsub\[([\w,]+)\]", code):
        assert set(named.split(",")) <= set(extras)
    for line in code.replace("\\\n", " ").splitlines():
        words = list(shlex.shlex(line, posix=True, punctuation_chars="|&;<>"))
        commands = [list(words) for end, words in itertools.groupby(words, lambda word: word[0] in "|&;<>") if not end]
        for program, *arguments in commands:
            if program == "pgpubsub":
                check_command(arguments)


def check_command(arguments: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    context = click.Context(group)
    while hasattr(group, "commands"):
        group = group.commands[arguments.pop(0)]
    if "--help" not in arguments:
        group.make_context(group.name, arguments, parent=context, resilient_parsing=True)
        known = {option for one in group.params for option in (*one.opts, *one.secondary_opts)}
        assert {one.partition("=")[0] for one in arguments if re.match(r"--\w", one)} <= known, arguments


def javascript(code: str) -> None:
    if node() is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    command = ["node", "--input-type=module", "--check", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def ini(code: str) -> None:
    configparser.ConfigParser(allow_no_value=True, interpolation=None).read_string(
        code if "[" in code else f"[file]\n{code}"
    )


READERS: dict[str, Callable[[str], object]] = {
    "sh": shell,
    "bash": shell,
    "js": javascript,
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "ini": ini,
}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in READERS], ids=str)
def test_what_is_not_python_can_be_read(block: Block) -> None:
    READERS[block.language](block.code)


# -- what leads elsewhere


def anchors(page: Path) -> set[str]:
    """Of the headings, as code hosts make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^):#\s]*)(?:#([^)]*))?\)", page.read_text()):
        target = (page.parent / link) if link else page
        assert target.exists(), (page, link)
        assert not anchor or anchor in anchors(target), (page, link, anchor)


def test_the_manual_explains_every_reason_for_a_gap_and_every_policy() -> None:
    manual = (ROOT / "docs" / "hub.md").read_text() + (ROOT / "docs" / "streams.md").read_text()
    for name in [*GapReason, *get_args(Overflow)]:
        assert re.search(rf'^\| `"?{name}"?` \|', manual, re.MULTILINE), name
