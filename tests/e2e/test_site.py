"""The manual's site: it builds without a warning, and shows what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import pgpubsub.contrib
from tests.e2e.snippets import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md"))

pytestmark = [
    pytest.mark.skipif(find_spec("zensical") is None, reason="zensical is not installed (the group docs)"),
    pytest.mark.timeout(300),  # the first one builds the site: five seconds, or a minute where others work too
]


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built anew."""
    for command in (["docs/build.py"], ["-m", "zensical", "build", "--clean", "--strict"]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=250)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert not re.search("griffe|warning", said, re.IGNORECASE), said
    return ROOT / "site"


def page_of(site: Path, page: Path) -> Path:
    inside = page.relative_to(DOCS).with_suffix("")
    return site / (inside.parent if inside.name == "index" else inside) / "index.html"


def reference(site: Path) -> str:
    return "".join(page.read_text() for page in (site / "reference").rglob("*.html"))


CONTRIB = [f"pgpubsub.contrib.{one.name}" for one in iter_modules(pgpubsub.contrib.__path__)]
INNER = {"pgpubsub.contrib.of_process"}  # which nobody but the others imports
MODULES = [
    "pgpubsub",
    *(f"pgpubsub.{name}" for name in ("streams", "triggers", "doctor", "testing", "testing.fixtures", "web")),
    *(name for name in CONTRIB if name not in INNER),
    "pgpubsub.contrib.channels.operations",
    "pgpubsub.contrib.django.operations",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module: str, site: Path) -> None:
    text = reference(site)
    names = [f"{module}.{name}" for name in import_module(module).__all__]
    missing = [name for name in names if f'id="{name}"' not in text and f'id="{elsewhere(name)}"' not in text]
    assert not missing, "add them to REFERENCE in docs/build.py"


def elsewhere(name: str) -> str:
    """The name by which a thing that two modules have is to be found: `pgpubsub.END` of `pgpubsub.streams.END`."""
    return f"pgpubsub.{name.rpartition('.')[2]}"


def test_the_reference_has_no_doctest_that_became_a_quotation(site: Path) -> None:
    assert "<blockquote>" not in reference(site)
    assert "&gt;&gt;&gt;" in reference(site)


def in_navigation(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for one in entry.values() if isinstance(entry, dict) else entry:
            yield from in_navigation(one)


def test_every_page_is_in_the_navigation() -> None:
    named = set(in_navigation(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    pages = {str(page.relative_to(DOCS)) for page in PAGES if page.parent.name != "decisions"}
    assert pages - named == set(), "add it to nav in zensical.toml"


def test_every_decision_is_in_the_list_of_them(site: Path) -> None:
    text = (site / "decisions" / "index.html").read_text()
    for note in (DOCS / "decisions").glob("*.md"):
        assert re.search(rf'<a href="{note.stem}/">\w', text), note


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_has_the_same_parts_where_the_code_is_kept_and_in_the_site(page: Path, site: Path) -> None:
    """Python-Markdown and CommonMark differ in what begins a list or a table; the pages are written for both."""
    from markdown_it import MarkdownIt

    parts = ("h1", "h2", "h3", "h4", "li", "tr", "td", "pre", "img", "blockquote")
    html = MarkdownIt("commonmark").enable("table").render(page.read_text())
    article = page_of(site, page).read_text().partition("<article")[2].partition("</article>")[0]
    assert Counter(re.findall(rf"<({'|'.join(parts)})\b", html)) == Counter(
        re.findall(rf"<({'|'.join(parts)})\b", article)
    )
    assert "\\|" not in re.sub(r"<pre.*?</pre>", "", article, flags=re.DOTALL)


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]* href="([^"]+)"[^>]* rel="?stylesheet', page.read_text())
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], page
