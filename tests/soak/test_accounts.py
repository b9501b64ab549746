"""The accounts of the soak: that they find what is missing, and nothing else."""

from __future__ import annotations

import pytest

from tests.soak.accounts import Accounts, Source


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def source(accounts: Accounts) -> Source:
    return accounts.source("p")


def texts(source: Source, count: int) -> list[str]:
    """All of them committed."""
    made = [source.next() for _ in range(count)]
    source.committed()
    return made


def test_who_gets_everything_is_not_behind(accounts: Accounts, source: Source) -> None:
    cursor = accounts.cursor("r", source)
    for text in texts(source, 3):
        assert cursor.came(text) is not None
    assert not accounts.behind()
    assert not accounts.complaints


def test_who_lacks_the_last_is_behind(accounts: Accounts, source: Source) -> None:
    cursor = accounts.cursor("r", source)
    cursor.came(texts(source, 2)[0])
    assert accounts.behind() == ["r of p: 1 of 2"]


def test_a_message_that_is_missing_is_found(accounts: Accounts, source: Source) -> None:
    first, _, third = texts(source, 3)
    cursor = accounts.cursor("r", source)
    cursor.came(first)
    cursor.came(third)
    assert accounts.complaints == ["r: p [2] missing (1) without a gap, before 3"]


def test_the_first_that_is_missing_is_found(accounts: Accounts, source: Source) -> None:
    accounts.cursor("r", source).came(texts(source, 2)[1])
    assert accounts.count == 1


def test_a_gap_excuses_what_is_missing_there_and_no_more(accounts: Accounts, source: Source) -> None:
    made = texts(source, 5)
    cursor = accounts.cursor("r", source)
    cursor.came(made[0])
    cursor.gap()
    cursor.came(made[2])
    assert not accounts.complaints
    cursor.came(made[4])
    assert accounts.complaints == ["r: p [4] missing (1) without a gap, before 5"]


def test_what_perhaps_was_not_sent_may_be_missing_or_come(accounts: Accounts, source: Source) -> None:
    source.next()
    perhaps = source.next()
    source.doubt()
    (third,) = texts(source, 1)
    for all_of_it in ([third], [perhaps, third]):
        cursor = accounts.passing("r", source)
        for text in ("p|1|0|", *all_of_it):
            cursor.came(text)
    assert not accounts.complaints


def test_what_comes_twice_or_out_of_order_is_found(accounts: Accounts, source: Source) -> None:
    first, second = texts(source, 2)
    cursor = accounts.cursor("r", source)
    for text in (first, second, first):
        cursor.came(text)
    assert accounts.complaints == ["r: p 1 came after 2"]


def test_who_comes_in_the_midst_begins_there(accounts: Accounts, source: Source) -> None:
    made = texts(source, 5)
    cursor = accounts.passing("r", source)
    cursor.came(made[2])
    assert not accounts.complaints
    cursor.came(made[4])
    assert accounts.count == 1


def test_who_chose_the_newest_gets_some_in_order(accounts: Accounts, source: Source) -> None:
    made = texts(source, 5)
    cursor = accounts.passing("r", source, newest_only=True)
    cursor.came(made[0])
    cursor.came(made[4])
    assert not accounts.complaints
    cursor.came(made[3])
    assert accounts.count == 1


def test_what_others_send_does_not_count(accounts: Accounts, source: Source) -> None:
    cursor = accounts.cursor("r", source)
    assert cursor.came("somebody else|7|0|") is None
    assert not accounts.complaints
