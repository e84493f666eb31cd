"""What a rollout acts on: the weights of the traffic, and the books in which its outcome is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mlcicd.core.errors import ServiceError


class Overtaken(ServiceError):
    """The books are about another champion by now: asked again, they say the same."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Who has the traffic: `share` of it the canary, the rest the live version."""

    live: str | None
    canary: str | None
    share: float


class Traffic(Protocol):
    """What moves the traffic. Every method may be repeated."""

    def look(self) -> Weights:
        """The weights as they are."""

    def set_share(self, version: str, share: float) -> None: ...

    def attend(self, seconds: float) -> None:
        """Somebody is looking: if nobody says so again within `seconds`, the champion gets all traffic back."""

    def promote(self, version: str) -> None: ...

    def take_back(self) -> None:
        """All traffic to the live version, then the canary is stopped."""

    def revert(self) -> None:
        """The version that was live before the promotion, live again."""


class Ledger(Protocol):
    """Where the outcome is written for others (the model registry). Every method may be repeated."""

    def promoted(self, version: str) -> None:
        """It has all the traffic.

        Raises:
            Overtaken: somebody else promoted another version in between.
        """

    def withdrawn(self, version: str, reason: str) -> None:
        """It had been promoted, or that had been begun, and the version before it is live again."""

    def taken_back(self, version: str, outcome: str, reason: str) -> None: ...
