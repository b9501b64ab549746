"""The checks of readers of streams: that they find what is wrong, and nothing else."""

from __future__ import annotations

from tests.chaos.checks import Gap
from tests.chaos.stream_checks import Entry, check_reader

REWOUND = Gap("rewound", (), None, None)


def test_readers_get_everything_once_and_in_order() -> None:
    one, two, three, other = Entry("p", 1), Entry("p", 2), Entry("p", 3), Entry("q", 1)
    everything = [one, two, three, other]
    assert check_reader("r", [one, other, two, three], everything, everything) == []
    cases: list[tuple[list[Entry | Gap], str]] = [
        ([one, other, two], "did not come"),
        ([one, other, three, two], "came after 3"),
        ([*everything, two], "came 2 times"),
        ([*everything, Entry("p", 9)], "is not in the table"),
        ([*everything, REWOUND], "nothing that can be lost"),
        ([*everything, Gap("trimmed", (), None, None)], "that cannot be"),
    ]
    for events, what in cases:
        assert any(what in wrong for wrong in check_reader("r", events, everything, everything)), what
    assert check_reader("r", [one, other, three, two], everything, [one, three, other]) == [], "two was uncertain"
    assert "was acknowledged" in check_reader("r", [one], [one], [one, two])[0]


def test_who_has_got_what_the_servers_have_lost_is_told_so() -> None:
    old, kept, lost, late, new = (Entry("p", number) for number in range(5))
    there, sure, doubtful = [kept, late, new], [kept, lost, late, new], [lost, late]

    def wrong(*events: Entry | Gap) -> list[str]:
        return check_reader("r", events, there, sure, doubtful=doubtful, earlier=[old])

    assert wrong(kept, late, new) == [], "it has got nothing of what is lost"
    assert wrong(kept, lost, REWOUND, late, new) == []
    assert wrong(kept, lost, REWOUND, old, kept, late, new) == [], "what both histories have may come again"
    assert wrong(kept, lost, REWOUND, REWOUND, late, new) == [], "it may have gone on before it was told"
    cases: list[tuple[list[Entry | Gap], str]] = [
        ([kept, lost, late, new], "came and is not in the table"),
        ([kept, REWOUND, lost, late, new], "nothing that can be lost"),
        ([kept, late, REWOUND, lost, new], "came and is not in the table"),
        ([kept, lost, REWOUND, new], "did not come"),
        ([kept, lost, REWOUND, late, late, new], "came 2 times"),
        ([kept, lost, REWOUND, new, late], "came after"),
        ([old, kept, late, new], "came and is not in the table"),
        ([Entry("p", 9), lost, REWOUND, late, kept, new], "was never in the table"),
    ]
    for events, what in cases:
        assert any(what in one for one in wrong(*events)), what
    assert "was acknowledged" in check_reader("r", [kept], [kept], [kept, lost])[0]
