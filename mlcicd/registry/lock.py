"""One writer at a time for a model, on any MLflow server.

MLflow has one atomic operation: of several callers that create a registered model of one name, exactly one succeeds.
The lock is made of that. Its epochs are registered models `mlcicd-lock--<model>--<number>`; who creates the number
after the newest holds the lock, and that number is its fencing token: from then on every holder of a lower one is
fenced, and finds out before and after each of its writes (:meth:`Lease.ensure`).

An epoch is free when its holder has marked it released, or when it has shown no sign of life for the lease that it
declared. That is measured by the clock of who waits, between two looks of its own: clocks of two machines are never
compared, so a clock that is off by a day changes nothing. Nobody has to unlock anything by hand. The newest epoch is
never deleted, older ones are: one small model is what the lock leaves behind.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from mlcicd.core.errors import MlcicdError, ServiceError, redact
from mlcicd.core.verdict import now
from mlcicd.registry.connection import TAG
from mlcicd.registry.journal import epoch_number, reached
from mlcicd.registry.models import RegisteredModels

PREFIX = "mlcicd-lock--"
_OWNER = f"{TAG}owner"
_BEAT = f"{TAG}beat"
_LEASE = f"{TAG}lease_s"
_RELEASED = f"{TAG}released"
_PURPOSE = f"{TAG}purpose"
_SINCE = f"{TAG}since"
_POLL_S = 0.2
_WAIT_S = 60.0
_CREATE_ATTEMPTS = 3
# No write is begun later than this part of the lease after the last sign of life that is known to have arrived.
_SAFE_PART = 0.75
# How often it is asked anew whether the lock is held, where the answer came late.
_PROOFS = 20


class Fenced(ServiceError):
    """Somebody else holds the lock now: the lease had run out, because this process, or the server, had stopped."""


@dataclass(frozen=True)
class _Epoch:
    """An epoch of the lock as one look at the registry saw it."""

    number: int
    owner: str
    beat: str
    lease_s: float
    released: bool
    purpose: str


@dataclass
class Lease:
    """The lock of one model, held. `epoch` is its fencing token: higher ones fence lower ones.

    `base` is the epoch that the journal had reached when it was taken.
    """

    registry: RegisteredModels
    name: str
    epoch: int
    owner: str
    lease_s: float
    _alive_at: float
    _beats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    base: int = 0

    def ensure(self) -> None:
        """Proves that the lock is still held, and will be for a while: to be called right before and after a write.

        Raises:
            Fenced: it is not.
            ServiceError: the registry does not answer, or so slowly that each proof is too old when it arrives.
        """
        for _attempt in range(_PROOFS):
            if _clock() - self._alive_at > self.lease_s * _SAFE_PART / 2:
                self._beat()
            others = [e.number for e in _epochs(self.registry, self.name, self.base)]
            if self.epoch not in others or max(others) > self.epoch:
                raise Fenced(
                    f"the lock of {self.name!r} was lost: its lease of {self.lease_s:g} s had run out",
                    where=redact(self.registry.uri),
                    why="This process, or the server, had stopped for longer than that, and another one took over.",
                    remedy="run the same command again; what was left undone is mended first",
                )
            if _clock() - self._alive_at <= self.lease_s * _SAFE_PART:
                return
        raise ServiceError(
            f"the registry answers too slowly for the lease of {self.lease_s:g} s of the lock of {self.name!r}",
            where=redact(self.registry.uri),
            why=f"{_PROOFS} times, that the lock is held was known only when most of the lease was over.",
            remedy="raise register.lock_lease, or run the same command again when the server has less to do",
        )

    def release(self) -> None:
        """Lets the next one in at once. A lock that can not be released is free when its lease has run out."""
        self._stop.set()
        with contextlib.suppress(MlcicdError):
            self.registry.tag_model(_model_name(self.name, self.epoch), {_RELEASED: "true"})

    def keep(self) -> None:
        """Shows signs of life from a thread of its own, for calls that take longer than the lease."""
        threading.Thread(target=self._keep, daemon=True, name="mlcicd-lease").start()

    def _keep(self) -> None:
        while not self._stop.wait(self.lease_s / 3):
            with contextlib.suppress(MlcicdError):
                self._beat()

    def _beat(self) -> None:
        began = _clock()
        self._beats += 1
        try:
            self.registry.tag_model(_model_name(self.name, self.epoch), {_BEAT: f"{self._beats}-{uuid4().hex[:8]}"})
        except ServiceError:
            # An epoch that was cleaned away after a takeover can not be tagged: `ensure` says so in its own words.
            if any(e.number == self.epoch for e in _epochs(self.registry, self.name, self.base)):
                raise
            return
        self._alive_at = max(self._alive_at, began)


@contextmanager
def held(
    registry: RegisteredModels,
    name: str,
    purpose: str,
    *,
    lease_s: float,
    at_least: int = 0,
    wait_s: float = _WAIT_S,
) -> Iterator[Lease]:
    """Holds the lock of a model while the block runs.

    Args:
        purpose: what it is held for, which others that wait are told.
        lease_s: how long it outlives the last sign of life, in seconds.
        at_least: the lowest epoch that may be taken; where the journal is further than the lock that is left.
        wait_s: how long to wait for it, in seconds.

    Raises:
        ServiceError: somebody else holds it for that long, or the registry does not answer.
    """
    lease = _acquire(registry, name, purpose, lease_s, at_least, wait_s)
    lease.keep()
    try:
        yield lease
    finally:
        lease.release()


def _acquire(
    registry: RegisteredModels, name: str, purpose: str, lease_s: float, at_least: int, wait_s: float
) -> Lease:
    owner = uuid4().hex
    give_up = _clock() + wait_s
    seen: tuple[int, str] | None = None
    since = _clock()
    while True:
        epochs = _epochs(registry, name, at_least)
        newest = max(epochs, key=lambda e: e.number, default=None)
        if newest is not None and (newest.number, newest.beat) != seen:
            seen, since = (newest.number, newest.beat), _clock()
        if newest is None or newest.released or _clock() - since > newest.lease_s:
            number = max(newest.number + 1 if newest else 1, at_least)
            lease = _take(registry, Lease(registry, name, number, owner, lease_s, _clock(), base=at_least), purpose)
            if lease is not None:
                return lease
        if _clock() > give_up:
            held_for = f": {newest.purpose}" if newest else ""
            raise ServiceError(
                f"the lock of {name!r} is held by somebody else{held_for}",
                where=redact(registry.uri),
                why=f"It was waited for during {wait_s:g} s.",
                remedy="wait until that has ended, then run the same command again",
            )
        time.sleep(min(_POLL_S, lease_s / 4) * random.uniform(0.5, 1.5))  # noqa: S311  (spreads those that wait)


def _take(registry: RegisteredModels, lease: Lease, purpose: str) -> Lease | None:
    """Tries to create an epoch; None when somebody else was first."""
    tags = {
        _OWNER: lease.owner,
        _BEAT: "0",
        _LEASE: f"{lease.lease_s:g}",
        _PURPOSE: purpose[:500],
        _SINCE: now().isoformat(timespec="seconds"),
    }
    failure: MlcicdError | None = None
    for _attempt in range(_CREATE_ATTEMPTS):
        failure = None
        try:
            registry.create_model(_model_name(lease.name, lease.epoch), tags)
        except ServiceError as error:
            failure = error
        # Who won is asked, not taken from the answer: that may have been lost, and the call repeated on the way.
        epochs = _epochs(registry, lease.name, lease.base)
        mine = next((e for e in epochs if e.number == lease.epoch), None)
        if mine is not None:
            failure = None
            break
    if failure is not None:
        raise failure
    if mine is None or mine.owner != lease.owner:
        return None
    if any(e.number > lease.epoch for e in epochs):
        # The number was free because later ones had been taken and this one cleaned away.
        registry.delete_model(_model_name(lease.name, lease.epoch))
        return None
    for old in (e for e in epochs if e.number < lease.epoch):
        with contextlib.suppress(ServiceError):
            registry.delete_model(_model_name(lease.name, old.number))
    return lease


def _epochs(registry: RegisteredModels, name: str, base: int) -> list[_Epoch]:
    """The epochs that are there; what no holder can have reached is passed over, or it would lock for ever."""
    prefix = f"{PREFIX}{name}--"
    found = []
    for model in registry.find_models(prefix):
        number = epoch_number(model.name.removeprefix(prefix)) if model.name.startswith(prefix) else None
        if number is not None:
            tags = model.tags
            found.append(
                _Epoch(
                    number,
                    tags.get(_OWNER, ""),
                    tags.get(_BEAT, ""),
                    _lease_of(tags.get(_LEASE, "")),
                    _RELEASED in tags,
                    tags.get(_PURPOSE, ""),
                )
            )
    known = reached([e.number for e in found], base)
    return [e for e in found if e.number in known]


def _lease_of(text: str) -> float:
    """A declared lease in seconds; a hostile or broken one does not lock for ever."""
    try:
        value = float(text)
    except ValueError:
        return 60.0
    return 60.0 if math.isnan(value) else min(max(value, 0.0), 3600.0)


def _model_name(name: str, epoch: int) -> str:
    return f"{PREFIX}{name}--{epoch:08d}"


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system can tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot) if boot is not None else time.monotonic()
