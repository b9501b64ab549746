"""For tests and demonstrations: servers that are gone afterwards, real or in memory, and a proxy that makes faults.

Fixtures for pytest are in `pgpubsub.testing.fixtures`.
"""

from __future__ import annotations

from pgpubsub.testing.memory import MemoryServer
from pgpubsub.testing.proxy import Proxy
from pgpubsub.testing.server import TemporaryServer

__all__ = ["MemoryServer", "Proxy", "TemporaryServer"]
