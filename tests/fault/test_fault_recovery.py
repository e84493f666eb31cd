"""A holder killed with SIGKILL keeps the next command waiting for its lease, and for nothing else."""

from __future__ import annotations

import pytest
from fault_recovery import PLACES, recovered_in


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_next_command_goes_on_where_a_killed_one_stopped(place: str) -> None:
    # How long it took is what the program prints; here the state afterwards counts, and that the lease was respected.
    assert recovered_in(place, 0.5)[0] > 0.5
