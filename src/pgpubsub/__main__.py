"""`python -m pgpubsub` is the program `pgpubsub`."""

from __future__ import annotations

import sys

from pgpubsub.cli import main

if __name__ == "__main__":
    sys.exit(main())
