"""`python -m pgpubsub` is the program `pgpubsub`."""

from __future__ import annotations

from pgpubsub.cli import program

if __name__ == "__main__":
    program()
