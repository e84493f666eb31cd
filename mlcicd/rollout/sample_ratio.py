"""Does the canary get the share of traffic it was meant to get?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mlcicd.rollout.eprocess import sample_ratio_log_e

NAME = "sample_ratio"


@dataclass
class SampleRatio:
    """Requests of both arms since the share was last set, against that share.

    The test starts again with every share, since a split is set right or wrong each time. The s-th start has
    6/(pi s)^2 of this test's part of alpha, which adds up to all of it (Euler 1735), however many steps there are.
    """

    share: float | None = None
    champion: int = 0
    canary: int = 0
    peak: float = 0.0
    starts: int = 0
    acknowledged: bool = False

    def start(self, share: float) -> None:
        """The share was set: what was counted before says nothing about it."""
        self.share, self.champion, self.canary = share, 0, 0
        self.peak, self.acknowledged = 0.0, False
        self.starts += 1

    def update(self, champion: int, canary: int) -> None:
        """Takes one window's requests."""
        self.champion, self.canary = self.champion + champion, self.canary + canary
        self.peak = max(self.peak, self.log_e)

    @property
    def log_e(self) -> float:
        if self.share is None or not 0.0 < self.share < 1.0:
            return 0.0
        return sample_ratio_log_e(self.champion, self.canary, self.share)

    def log_threshold(self, log_threshold: float) -> float:
        """The threshold of the present start, from that of the whole test."""
        return log_threshold + 2 * math.log(math.pi * max(self.starts, 1)) - math.log(6)

    def observed(self) -> dict[str, float]:
        total = self.champion + self.canary
        return {
            "intended": math.nan if self.share is None else self.share,
            "canary": self.canary / total if total else math.nan,
        }

    def state(self) -> dict[str, Any]:
        return asdict(self)
