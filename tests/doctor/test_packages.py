"""The doctor's check for other packages of the same name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pgpubsub
from pgpubsub.doctor import Examined, Severity


@pytest.fixture
def new_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs what there is to be read of a package, in a directory of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def new_package(name: str, **files: bytes) -> None:
        directory = tmp_path / f"{name.replace('-', '_')}-1.3.2.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.3.2\n")
        for file, content in files.items():
            (directory / file.replace("_txt", ".txt")).write_bytes(content)

    return new_package


def test_another_package_with_the_same_import_name_is_told_of(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None]
) -> None:
    new_package(
        "django-pgpubsub", RECORD=b"django_pgpubsub-1.3.2.dist-info/RECORD,,\npgpubsub/__init__.py,sha256=a,1\n"
    )
    (finding,) = examined(dsn).findings
    assert finding.severity is Severity.WARNING
    assert "so that either may be imported, or files of both: django-pgpubsub 1.3.2" in finding.cause
    assert "pip uninstall pgpubsub django-pgpubsub" in finding.cure
    assert finding.evidence["packages"] == {"django-pgpubsub": "1.3.2"}
    assert finding.evidence["imported from"] == str(Path(pgpubsub.__file__).parent)


@pytest.mark.parametrize("listed", [b"pgpubsub.py,sha256=a,1\n", b'"pgpubsub/a,b.py",sha256=a,1\n'])
def test_modules_and_quoted_names_count_too(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None], listed: bytes
) -> None:
    new_package("another", RECORD=listed)
    assert [list(one.evidence["packages"]) for one in examined(dsn).findings] == [["another"]]


def test_what_setuptools_lists_counts_where_there_is_no_list_of_files(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None]
) -> None:
    new_package("another", top_level_txt=b"other\npgpubsub\n")
    assert [list(one.evidence["packages"]) for one in examined(dsn).findings] == [["another"]]


def test_one_that_is_installed_to_be_edited_has_its_files_elsewhere(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None]
) -> None:
    new_package(
        "django-pgpubsub",
        RECORD=b"__editable__.django_pgpubsub-1.3.2.pth,,\ndjango_pgpubsub-1.3.2.dist-info/RECORD,,\n",
        top_level_txt=b"pgpubsub\n",
    )
    assert [list(one.evidence["packages"]) for one in examined(dsn).findings] == [["django-pgpubsub"]]


def test_what_is_left_of_a_package_without_a_name_is_left_out(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None], tmp_path: Path
) -> None:
    new_package("another", RECORD=b"pgpubsub.py,sha256=a,1\n")
    (tmp_path / "another-1.3.2.dist-info" / "METADATA").unlink()
    assert examined(dsn).findings == ()


def test_packages_that_are_only_called_alike_and_this_one_installed_twice_are_fine(
    dsn: str, examined: Callable[..., Examined], new_package: Callable[..., None]
) -> None:
    new_package("PgPubSub", RECORD=b"pgpubsub/__init__.py,sha256=a,1\n")
    new_package(
        "pgpubsub-tools", RECORD=b"pgpubsub_tools/__init__.py,,\nother/pgpubsub/__init__.py,,\npgpubsub.pth,,\n"
    )
    new_package("broken", RECORD=b"pgpubsub/\xff.py,,\n")
    found = examined(dsn)
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine == ("no other installed package has the import name pgpubsub",)
