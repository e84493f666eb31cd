"""A part of the fault matrix; all of it is `make fault`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "fault_matrix.py"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("store", "at_least"), [("sqlite", 15), ("postgres", 10)])
def test_no_fault_breaks_an_invariant(store: str, at_least: int) -> None:
    command = [sys.executable, str(PROGRAM), "--reduced", "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = re.search(r"(\d+) injections, 0 invariants broken", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= at_least
