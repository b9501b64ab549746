"""`python -m tests.chaos`: see the package."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from tests.chaos.arena import Arena
from tests.chaos.campaign import Broken, Campaign
from tests.chaos.faults import impossible
from tests.chaos.pair import fetch
from tests.chaos.report import record


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.chaos", description="Faults at random, and a check of every message.")
    parser.add_argument("--faults", type=int, default=1000, help="how many, at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="repeats a plan")
    parser.add_argument("--first", type=int, default=1, metavar="ROUND", help="begin with this round")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="a new one, in which journals stay")
    parser.add_argument("--record", action="store_true", help="write docs/reliability.md anew with what was survived")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        parser.error(f"{options.keep} exists: journals would be added to others")
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="pgpubsub-chaos-") as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(exist_ok=True, parents=True)
        directory.chmod(0o755)  # the servers, which are another user's, read the time there
        with Arena(directory, options.seed, own_disks=os.geteuid() == 0) as arena:
            lacking = impossible(arena)
            for name in lacking:
                print(f"left out, since it takes root or a C compiler: {name}")
            campaign = Campaign(arena, options.seed, lacking)
            number = options.first
            try:
                while campaign.faults.total() < options.faults:
                    campaign.round(number)
                    number += 1
            except Broken as error:
                print(f"{error}\n\nto repeat it: --seed {options.seed} --first {number}")
                return 1
            finally:
                print(campaign.summary)
            if options.record:
                ((server,),) = fetch(arena.pair.primary.dsn(), "SHOW server_version")
                record(campaign, options.seed, server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
