"""Outcomes that come late: what became of the predictions of one stretch of time, known hours or days afterwards.

They are counted by the time of the *prediction*, never by that of the label. Labels of one kind may come sooner than
those of the other (a click within a minute, its absence after a day), so that what is known early is not what will be
known: a cohort is judged once it has matured, `label_delay` after its end, and then whole.

One JSON object a line, in a file of their own or between the windows; a later line of the same `t` replaces the counts
it names, and either arm may be missing::

    {"t": 1700000000, "seconds": 60,
     "champion": {"rates": {"fraud_missed": {"n": 440, "x": 9}}},
     "canary": {"rates": {"fraud_missed": {"n": 48, "x": 1}}}}

The evidence of a rollout also says when the canary became the champion, ``{"t": 1700003600, "promoted": true}``: what
was predicted from then on has no second arm, and no clock of a replay could tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from mlcicd.core.errors import InputError
from mlcicd.rollout.windows import Arm, Window

Rates = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The outcomes of the predictions that were made from `t` on, for `seconds`.

    Args:
        t: seconds, in the clock of the windows.
        seconds: how long predictions of this cohort were made, more than 0.
        champion, canary: by metric `(n, x)`: `n` predictions with an outcome, `x` events among them.

    Raises:
        InputError: a time is not finite, or a count is not one.
    """

    t: float
    seconds: float
    champion: Rates = field(default_factory=dict)
    canary: Rates = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.t) and math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError(f"a cohort begins at a time and lasts some seconds, not {self.t} and {self.seconds}")
        for rates in (self.champion, self.canary):
            # An arm's own checks of its counts.
            Arm(0, rates=rates)

    @property
    def end(self) -> float:
        return self.t + self.seconds

    @property
    def names(self) -> set[str]:
        """The metrics it says something about."""
        return {*self.champion, *self.canary}

    def only(self, names: Iterable[str]) -> Cohort:
        """The same cohort with these metrics alone."""
        kept = set(names)
        champion = {name: counts for name, counts in self.champion.items() if name in kept}
        canary = {name: counts for name, counts in self.canary.items() if name in kept}
        return replace(self, champion=champion, canary=canary)

    def updated(self, later: Cohort) -> Cohort:
        """With the counts that a later line of the same time names."""
        champion, canary = {**self.champion, **later.champion}, {**self.canary, **later.canary}
        return replace(later, champion=champion, canary=canary)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"t": self.t, "seconds": self.seconds}
        for name, rates in (("champion", self.champion), ("canary", self.canary)):
            if rates:
                value[name] = {"rates": {metric: {"n": n, "x": x} for metric, (n, x) in rates.items()}}
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], seconds: float) -> Cohort:
        """Reads a cohort from a parsed JSON object; it lasts `seconds` where it does not say so itself.

        Raises:
            InputError: a key is missing or unknown, or a count is not one.
        """
        unknown = sorted(set(value) - {"t", "seconds", "champion", "canary"})
        if unknown or "t" not in value:
            raise InputError(
                f"a cohort has `t`, `seconds`, `champion` and `canary`, not {', '.join(unknown) or 'no t'}"
            )
        arms = {}
        for name in ("champion", "canary"):
            arm = value.get(name, {})
            if not isinstance(arm, Mapping):
                raise InputError(f"{name} must be an object, not {type(arm).__name__}")
            # An arm of a window without requests of its own: the same checks of the same keys.
            arms[name] = Arm.from_json({"requests": 0, **arm}, name).rates
        return cls(_number(value["t"], "t"), _number(value.get("seconds", seconds), "seconds"), **arms)

    @classmethod
    def of(cls, window: Window, seconds: float) -> Cohort | None:
        """The outcomes that a window itself holds; None when it holds none."""
        if not window.champion.rates and not window.canary.rates:
            return None
        return cls(window.t, seconds, window.champion.rates, window.canary.rates)


def is_cohort(value: object) -> bool:
    """Whether a parsed line is a cohort: it counts no requests, and states no share."""
    if not isinstance(value, Mapping) or "share" in value:
        return False
    arms = [value.get(name) for name in ("champion", "canary") if name in value]
    return bool(arms) and all(isinstance(arm, Mapping) and set(arm) <= {"rates"} for arm in arms)


def promotion_line(t: float) -> dict[str, Any]:
    """What is written of a promotion at `t`, seconds in the clock of the windows."""
    return {"t": t, "promoted": True}


def is_promotion(value: object) -> bool:
    """Whether a parsed line says when the canary was promoted."""
    return isinstance(value, Mapping) and set(value) == {"t", "promoted"}


def read_promotion(path: Path) -> float | None:
    """When the canary was promoted, by a file of JSON lines; None when it does not say so.

    Raises:
        InputError: the file can not be read, or the line (named) tells no time.
    """
    promoted = None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(file, start=1):
                if '"promoted"' in line and is_promotion(value := _parsed(line, f"{path}:{number}")):
                    promoted = _promotion_time(value, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("can not read the outcomes", where=str(path), why=str(error)) from error
    return promoted


def read_cohorts(path: Path, seconds: float, *, growing: bool = False) -> list[Cohort]:
    """The cohorts of a file of JSON lines, by time: those of its own lines, and those that its windows hold.

    Args:
        path: the file.
        seconds: how long a cohort lasts that does not say so.
        growing: somebody is writing it: a last line without its end is left for later.

    Raises:
        InputError: the file can not be read, or a line (named) is neither a cohort nor a window.
    """
    found: dict[float, Cohort] = {}
    own: dict[float, Cohort] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and (line.endswith("\n") or not growing):
                    _add(line, f"{path}:{number}", seconds, found, own)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("can not read the outcomes", where=str(path), why=str(error)) from error
    for t, cohort in found.items():
        own[t] = own[t].updated(cohort) if t in own else cohort
    return [own[t] for t in sorted(own)]


def _add(line: str, where: str, seconds: float, found: dict[float, Cohort], own: dict[float, Cohort]) -> None:
    value = _parsed(line, where)
    try:
        if is_promotion(value):
            _promotion_time(value, where)
        elif is_cohort(value):
            cohort = Cohort.from_json(value, seconds)
            found[cohort.t] = found[cohort.t].updated(cohort) if cohort.t in found else cohort
        else:
            of_window = Cohort.of(Window.from_json(value), seconds)
            if of_window is not None:
                own[of_window.t] = of_window
    except InputError as error:
        raise InputError(error.what, where=where, why=error.why, remedy=error.remedy) from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError("this line is not JSON", where=where, why=str(error)) from error


def _promotion_time(value: Mapping[str, Any], where: str) -> float:
    t = value.get("t")
    if value["promoted"] is not True or not _is_finite(t):
        raise InputError(
            "this line does not say when the canary was promoted",
            where=where,
            remedy='write it as {"t": SECONDS, "promoted": true}',
        )
    return float(t)


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: object, name: str) -> float:
    if not _is_finite(value):
        raise InputError(f"{name} must be a finite number, not {value!r}")
    return float(value)
