"""The doctor: what is wrong with a deployment, how that shows, and what to do about it.

`examine` looks at a server as a client does, in under two seconds, and returns a `Report`. Each thing that it looks for
is a module of `pgpubsub.doctor.checks`. It promises to change nothing; it does not promise to see what a role without
the rights of `pg_monitor` is not shown, nor what lies behind a pooler other than this server.
"""

from __future__ import annotations

from pgpubsub.doctor.examination import examine
from pgpubsub.doctor.report import Examined, Finding, Report, Severity

__all__ = ["Examined", "Finding", "Report", "Severity", "examine"]
