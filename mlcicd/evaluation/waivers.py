"""Gates that failed and pass all the same, because a person has said so, for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from mlcicd.config.expectations import Waiver
from mlcicd.core.verdict import Check, CheckStatus, Severity

_WAIVED = (CheckStatus.FAILED, CheckStatus.INCONCLUSIVE)


@dataclass
class Waived:
    """Checks after waivers, and what there is to say about each waiver.

    Attributes:
        states: `used`, `unused`, `expired` or `refused`, one a waiver, in their order.
    """

    checks: list[Check]
    findings: list[Check] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


def apply_waivers(checks: Sequence[Check], waivers: Sequence[Waiver], today: date) -> Waived:
    """Lets checks pass that a valid waiver names by gate and slice.

    A waiver is for a value that was seen and is not good enough. What could not be measured (NaN, no such slice, no
    answer) stays failed: nobody can have weighed it.
    """
    result = Waived(list(checks))
    for waiver in waivers:
        places = [
            i
            for i, check in enumerate(result.checks)
            if check.name == waiver.gate
            and check.slice == waiver.slice
            and check.status in _WAIVED
            and check.severity is Severity.FAIL
        ]
        measured = [i for i in places if _was_measured(result.checks[i])]
        if waiver.expires < today:
            state = "expired"
            also = "; its gate fails" if places else ""
            finding = _finding(
                waiver, f"it expired on {waiver.expires}{also}", "decide anew, or take it out of the file"
            )
        elif measured:
            state = "used"
            for i in measured:
                result.checks[i] = _pass(result.checks[i], waiver)
            finding = _finding(waiver, f"WAIVED {_terms(waiver)}", f"mend the model before {waiver.expires}")
        elif places:
            state = "refused"
            finding = _finding(
                waiver, "a waiver does not cover what could not be measured", "mend the evaluation first"
            )
        else:
            state = "unused"
            finding = _finding(waiver, "it waives nothing: no such gate failed", "take it out of the file")
        result.states.append(state)
        result.findings.append(finding)
    return result


def _was_measured(check: Check) -> bool:
    if isinstance(check.observed, float):
        return math.isfinite(check.observed)
    return bool(check.observed)


def _terms(waiver: Waiver) -> str:
    return f"until {waiver.expires} by {waiver.approver}: {waiver.reason}"


def _pass(check: Check, waiver: Waiver) -> Check:
    details = {
        **check.details,
        "waived": str(check.status),
        "waiver": {"reason": waiver.reason, "approver": waiver.approver, "expires": waiver.expires.isoformat()},
    }
    reason = f"WAIVED {_terms(waiver)} (without the waiver: {check.status}, {check.reason})"
    return check.model_copy(update={"status": CheckStatus.PASSED, "reason": reason, "details": details})


def _finding(waiver: Waiver, reason: str, remedy: str) -> Check:
    return Check(
        name=f"waiver: {waiver.gate}",
        slice=waiver.slice,
        status=CheckStatus.FAILED,
        severity=Severity.WARN,
        reason=reason,
        remedy=remedy,
    )
