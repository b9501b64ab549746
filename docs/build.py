"""Lay out what the manual's site is built of: `make docs` runs this, and then Zensical on what it has made.

The pages in `docs` are written for whoever reads them where the code is kept: their links lead to other pages and to
files of the repository. The site has only what is laid out here, in `build/manual`:

- the pages, with links to files outside `docs` leading to pages that show those files;
- the reference, a page for each part of the public interface, which mkdocstrings fills with docstrings. A public name
  that no page has is an error.

It does not check links: Zensical does, with `--strict`, on what was laid out.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LAID_OUT = ROOT / "build" / "manual"

REFERENCE: dict[str, tuple[str, str]] = {
    "hubs": ("Hubs", "pgpubsub: Hub AsyncHub Subscription AsyncSubscription"),
    "events": ("What arrives", "pgpubsub: Notify Gap GapReason Undecodable Entry Change"),
    "channels": ("Channels", "pgpubsub: Channel"),
    "transactions": ("In a transaction of yours", "pgpubsub: notify notify_async append append_async"),
    "streams": (
        "Streams",
        "pgpubsub: Stream AsyncStream Reader AsyncReader BEGINNING END; "
        "pgpubsub.streams: install install_async sql create create_async UNCHANGED trim trim_async",
    ),
    "groups": (
        "Groups",
        "pgpubsub: Consumer Delivery Batch AsyncConsumer AsyncDelivery AsyncBatch "
        "GroupInfo GroupMember HeldUp DeadLetter",
    ),
    "triggers": ("Triggers", "pgpubsub.triggers: *"),
    "classic": ("The classic interface", "pgpubsub: connect PubSub NotificationHandler"),
    "status": ("Status and observations", "pgpubsub: HubState HubStatus HubStats SubscriptionStats Observation"),
    "errors": ("Errors", "pgpubsub.errors: *"),
    "doctor": ("The doctor", "pgpubsub.doctor: *"),
    "testing": ("Testing", "pgpubsub.testing: *; pgpubsub.testing.fixtures: *"),
    "web": ("The gateway", "pgpubsub.web: *"),
    "sse": ("Server-sent events", "pgpubsub.contrib.sse: *; pgpubsub.contrib.asgi: *"),
    "frameworks": (
        "Starlette, Litestar, Flask",
        "pgpubsub.contrib.starlette: *; pgpubsub.contrib.litestar: *; pgpubsub.contrib.flask: *",
    ),
    "observability": (
        "Prometheus, OpenTelemetry, logs",
        "pgpubsub.contrib.prometheus: *; pgpubsub.contrib.opentelemetry: *; pgpubsub.logs: *; pgpubsub.tracing: *",
    ),
    "django": (
        "Django",
        "pgpubsub.contrib.django: *; pgpubsub.contrib.django.operations: *; "
        "pgpubsub.contrib.channels: *; pgpubsub.contrib.channels.operations: *",
    ),
    "sqlalchemy": ("SQLAlchemy, Alembic", "pgpubsub.contrib.sqlalchemy: *; pgpubsub.contrib.alembic: *"),
}
"""For each page of the reference its title, and modules with their names; a star stands for a module's `__all__`."""

HANDED_OUT = re.compile(r"pgpubsub\.(Async)?(Subscription|Stream|Reader|Consumer|Delivery|Batch)")

WHY = "Why it is as it is: a note for each choice that was hard, with what was considered and not taken."

ABOUT = """::: {}
    options:
      members: []
      show_root_heading: false
      show_root_toc_entry: false"""
"""What a module says of itself."""

LANGUAGES = {".py": "python", ".js": "js", ".html": "html", ".c": "c", ".ini": "ini", ".mako": "mako", ".md": "md"}
LINK = re.compile(r"(?<=\]\()(?P<path>[^):#\s]+)(?P<anchor>#[^)]*)?(?=\))")
FENCED = re.compile(r"^(?P<fence> *```).*?^(?P=fence)$", re.MULTILINE | re.DOTALL)


def names_of(entry: str) -> Iterator[str]:
    """The full names of what a page of the reference has: names_of("pgpubsub: Hub connect") are two."""
    for part in entry.split(";"):
        module, _, names = part.strip().partition(": ")
        listed = importlib.import_module(module).__all__ if names == "*" else names.split()
        public = "pgpubsub" if module == "pgpubsub.errors" else module
        yield from (f"{public}.{name}" for name in listed)


def public_names() -> set[str]:
    """What has to be in the reference: the names of every module that one of its pages is about."""
    modules = {part.strip().partition(": ")[0] for _, entry in REFERENCE.values() for part in entry.split(";")}
    return {f"{module}.{name}" for module in modules for name in importlib.import_module(module).__all__}


def reference_page(title: str, entry: str) -> str:
    modules = [part.strip().partition(": ")[0] for part in entry.split(";")]
    about = [ABOUT.format(module) for module in modules if module != "pgpubsub"]
    return "\n\n".join([f"# {title}", *about, *map(directive, names_of(entry))]) + "\n"


def directive(name: str) -> str:
    """What mkdocstrings fills. How a thing is made that is only handed out is nobody's business."""
    is_handed_out = HANDED_OUT.fullmatch(name) is not None
    return f"::: {name}" + ("\n    options:\n      merge_init_into_class: false" if is_handed_out else "")


def is_said_elsewhere(name: str, said: set[str]) -> bool:
    """Whether a module merely repeats a name that another page has, such as `pgpubsub.streams.END`."""
    module, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(module), last)
    return any(getattr(importlib.import_module(o.rpartition(".")[0]), o.rpartition(".")[2]) is thing for o in said)


def write_reference() -> None:
    said = {name for _, entry in REFERENCE.values() for name in names_of(entry)}
    forgotten = sorted(name for name in public_names() - said if not is_said_elsewhere(name, said))
    if forgotten:
        raise SystemExit(f"docs/build.py: no page of the reference has {', '.join(forgotten)}")
    for page, (title, entry) in REFERENCE.items():
        (LAID_OUT / "reference" / f"{page}.md").write_text(reference_page(title, entry))


def page_of_file(path: Path) -> Path:
    """Where the site shows a file, or the files of a directory, that is not a page: `files/examples/chat.py.md`."""
    return Path("files", f"{path.relative_to(ROOT)}.md")


def show_file(path: Path) -> None:
    """Make the page that shows a file, or the files of a directory."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if is_shown(file))
    shown = "\n\n".join(f"{heading(file, path)}{listing(file)}" for file in files)
    target = LAID_OUT / page_of_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"# {path.relative_to(ROOT)}\n\n{shown}\n")


def is_shown(file: Path) -> bool:
    return file.is_file() and file.suffix in LANGUAGES and "__pycache__" not in file.parts


def heading(file: Path, path: Path) -> str:
    return "" if file == path else f"## {file.relative_to(path)}\n\n"


def listing(file: Path) -> str:
    return f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text().rstrip()}\n````"


def laid_out(page: Path) -> str:
    """The text of a page, with its links as they are in the site."""

    def link(found: re.Match[str]) -> str:
        target = (page.parent / found["path"]).resolve()
        if not target.exists():
            raise SystemExit(f"{page.relative_to(ROOT)}: there is no {found['path']}")
        if target.is_relative_to(DOCS) and target.suffix != ".py":
            return found[0] + ("/index.md" if target.is_dir() else "")
        show_file(target)
        depth = len(page.relative_to(DOCS).parents) - 1
        return "../" * depth + str(page_of_file(target)) + (found["anchor"] or "")

    return outside_of_fences(page.read_text(), lambda text: unescaped(LINK.sub(link, text)))


def outside_of_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed but its blocks of code."""
    parts, end = [], 0
    for fence in FENCED.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def unescaped(text: str) -> str:
    """Without the backslash that code in tables has before a bar elsewhere, and that Python-Markdown would show."""
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace(r"\|", "|"), text)


def write_list_of_decisions() -> None:
    notes = sorted(note for note in (DOCS / "decisions").glob("*.md") if note.stem != "index")
    titles = [note.read_text().partition("\n")[0].removeprefix("# ") for note in notes]
    listed = "\n".join(
        f"- [{title.lstrip('0123456789. ')}]({note.name})" for title, note in zip(titles, notes, strict=True)
    )
    (LAID_OUT / "decisions" / "index.md").write_text(f"# Decisions\n\n{WHY}\n\n{listed}\n")


def main() -> None:
    shutil.rmtree(LAID_OUT, ignore_errors=True)
    shutil.copytree(DOCS, LAID_OUT, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in DOCS.rglob("*.md"):
        (LAID_OUT / page.relative_to(DOCS)).write_text(laid_out(page))
    write_reference()
    write_list_of_decisions()


if __name__ == "__main__":
    main()
