"""Simulations of the core: thousands of random schedules, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


def simulations() -> Mapping[str, Simulation]:
    """All of them, by name."""
    from tests.sim import (
        test_appender_schedules,
        test_groups_schedules,
        test_hub_schedules,
        test_sender_schedules,
        test_session_schedules,
        test_stream_schedules,
    )

    found = [
        test_session_schedules.SIMULATION,
        test_hub_schedules.SIMULATION,
        test_sender_schedules.SIMULATION,
        test_appender_schedules.SIMULATION,
        test_stream_schedules.SIMULATION,
        *test_groups_schedules.SIMULATIONS,
    ]
    return {one.name: one for one in found}
