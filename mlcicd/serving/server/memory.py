"""How much memory the process holds."""

from __future__ import annotations

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_mb() -> float | None:
    """Resident memory in MiB; None where the system does not tell what it is now (macOS tells the largest ever)."""
    try:
        # In pages: total, resident, ... (proc_pid_statm(5)).
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return None
