"""gates self-test: models that ought to fail are put before the gates, and the champion itself, which ought to pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus, Severity, Status
from mlcicd.evaluation.gate_set import GateSet, gate_name
from mlcicd.evaluation.gate_trials import (
    CAUGHT,
    Rung,
    Trial,
    gate_names,
    ladder,
    largest_passed,
    smallest_caught,
    trials,
    without_value,
)
from mlcicd.stages.gate_ground import trial_ground
from mlcicd.stages.record import Record, stage

NAME = "gates-self-test"


@stage(NAME)
def self_test(record: Record, *, model: str = "", seed: int = 0) -> Status | None:
    """Judges made-up models by the gates of mlcicd.yaml, with the champion (or the last model) as the champion.

    The verdict fails when a model that is plainly bad would go through, or when the unchanged champion would not; it is
    inconclusive when the holdout is too small to tell them apart.

    Args:
        model: a model directory to take for the champion.
        seed: of what is drawn.
    """
    with trial_ground(record) as ground:
        words, reference = ground.reference(model)
        gates = ground.gates
        # Without any slice gate, one column shows what the gates then do not see.
        extra = {} if gates.slice_gates else dict(list(ground.categories.items())[:1])
        gates = replace(gates, columns={**gates.columns, **extra})
        record.progress.step(f"judging models made bad out of {words}")
        found = list(trials(gates, reference, seed=seed, slices=tuple(extra)))
        record.progress.step("judging it with more and more noise")
        rungs = ladder(gates, reference, seed=seed)
    record.checks += [_check(gates, trial) for trial in found]
    record.checks.append(_noise_check(gates, rungs))
    by_gate = _by_gate(found, rungs)
    record.checks += [_gate_check(gates, gate, caught, rungs) for gate, caught in by_gate.items()]
    record.details.update(
        {
            "reference": words,
            "rows": gates.n,
            "trials": [_trial_facts(trial) for trial in found],
            "noise": [_rung_facts(rung) for rung in rungs],
            "gates": by_gate,
            "not_tried": list(ground.left_out),
        }
    )
    if gates.metrics:
        record.figure(_picture(gates.metrics[0], rungs))
    status = _conclude(record.checks)
    if status is Status.PASSED:
        bad = [trial for trial in found if trial.kind != "identical"]
        passed = next(trial for trial in found if trial.kind == "identical")
        record.summary = (
            f"{sum(t.judged.blocked for t in bad)} of {len(bad)} bad models are stopped, the unchanged one "
            f"{'passes' if not passed.judged.blocked else 'does not pass'}; {_noise_words(gates, rungs)}"
        )
    elif not gates.gates and not gates.slice_gates:
        record.summary = "the gates catch nothing: no gate reads what the model answers"
    return status


def _conclude(checks: Sequence[Check]) -> Status:
    from mlcicd.core.verdict import conclude

    return conclude(list(checks))


def _check(gates: GateSet, trial: Trial) -> Check:
    if trial.kind == "identical":
        return _unchanged(gates, trial)
    judged = trial.judged
    caught = [*judged.named(CheckStatus.FAILED)]
    common: dict[str, Any] = {"name": trial.name, "required": "stopped", "details": {"what": trial.what}}
    severity = Severity.FAIL
    if trial.kind == "slice" and not any(
        g.by == trial.column and g.severity is Severity.FAIL for g in gates.slice_gates
    ):
        severity = Severity.WARN
    if judged.refused:
        return Check(**common, status=CheckStatus.PASSED, observed="refused", reason=judged.refused)
    if caught:
        return Check(**common, status=CheckStatus.PASSED, observed="failed", reason=f"caught by {listed(caught)}")
    if judged.status is Status.INCONCLUSIVE:
        unsure = judged.named(CheckStatus.INCONCLUSIVE)
        return Check(
            **common,
            status=CheckStatus.INCONCLUSIVE,
            severity=severity,
            observed="inconclusive",
            reason=f"{trial.what}: it is held back, and not recognised, by {listed(unsure)}",
            remedy=f"add labelled rows to the holdout: {gates.n:,} are too few to fail such a model",
        )
    return Check(
        **common,
        status=CheckStatus.FAILED,
        severity=severity,
        observed="passed",
        reason=f"{trial.what}: it would go through, no gate fails it",
        remedy=_remedy(trial),
    )


def _remedy(trial: Trial) -> str:
    if trial.kind == "slice":
        return f"gate the slices: evaluate.slices: [{{by: {trial.column}, metric: ..., min: ...}}]"
    return "tighten a gate, or compare with the champion (vs_champion); `mlcicd gates suggest` proposes thresholds"


def _unchanged(gates: GateSet, trial: Trial) -> Check:
    judged = trial.judged
    common: dict[str, Any] = {"name": trial.name, "required": "passes", "details": {"what": trial.what}}
    bad = [c for c in judged.checks if c.severity is Severity.FAIL and c.status is not CheckStatus.PASSED]
    if judged.status in (Status.PASSED, Status.UNGATED):
        return Check(**common, status=CheckStatus.PASSED, observed=str(judged.status))
    asked_better = {g.metric for g in gates.gates if g.vs_champion is not None and g.vs_champion.superiority}
    # To ask that every change be better is a choice; that the same model then fails is its price, not a fault.
    chosen = all(c.name in {f"{metric} vs champion" for metric in asked_better} for c in bad)
    said = judged.refused or "; ".join(f"{gate_name(c)}: {c.reason}" for c in bad[:3])
    return Check(
        **common,
        status=CheckStatus.INCONCLUSIVE if judged.status is Status.INCONCLUSIVE else CheckStatus.FAILED,
        severity=Severity.WARN if chosen else Severity.FAIL,
        observed=str(judged.status),
        reason=f"the unchanged model does not pass its own gates: {said}",
        remedy="ask for not worse (a margin) instead of better, where an equal model is welcome"
        if chosen
        else "loosen what is named here, or add labelled rows; `mlcicd gates suggest` proposes thresholds",
    )


def _noise_check(gates: GateSet, rungs: Sequence[Rung]) -> Check:
    caught = smallest_caught(rungs)
    common: dict[str, Any] = {"name": "noise", "required": "failed from some strength on"}
    if caught is None:
        return Check(
            **common,
            status=CheckStatus.FAILED,
            observed="never failed",
            reason="the model with noise on its answers is not failed at any strength that was tried, "
            f"up to {losses(rungs[-1])}",
            remedy="tighten a gate, or compare with the champion (vs_champion)",
        )
    details = {"loss": caught.loss, "strength": caught.strength}
    return Check(**common, status=CheckStatus.PASSED, reason=_noise_words(gates, rungs), details=details)


def _noise_words(gates: GateSet, rungs: Sequence[Rung]) -> str:
    caught, passed = smallest_caught(rungs), largest_passed(rungs)
    words = f"noise is failed from a loss of {losses(caught)} on" if caught else "noise is never failed"
    if passed is None:
        return f"{words}; even the faintest does not pass"
    return f"{words}; it still passed at {losses(passed)}"


def losses(rung: Rung) -> str:
    return ", ".join(f"{loss:.2g} {metric}" for metric, loss in rung.loss.items()) or f"strength {rung.strength:g}"


def _by_gate(found: Sequence[Trial], rungs: Sequence[Rung]) -> dict[str, list[str]]:
    """Gate to the names of the models it fails."""
    named: dict[str, list[str]] = {}
    for gate in gate_names(found, rungs):
        named[gate] = [
            t.name
            for t in found
            if t.kind != "identical" and gate in {without_value(name) for name in t.judged.named(CheckStatus.FAILED)}
        ]
    return named


def _gate_check(gates: GateSet, gate: str, caught: Sequence[str], rungs: Sequence[Rung]) -> Check:
    rung = smallest_caught(rungs, gate)
    words = [*caught, *([f"noise from {losses(rung)}"] if rung else [])]
    name = f"gate {gate}"
    # Any gate notices a NaN; one that notices nothing else is not worth its line.
    if set(caught) <= {"NaN everywhere", "NaN in one row"} and rung is None:
        return Check(
            name=name,
            status=CheckStatus.FAILED,
            severity=Severity.WARN,
            required="fails some bad model",
            observed=listed(words) or "nothing",
            reason="it fails none of the models that answer badly, only those that do not answer"
            if caught
            else "it fails none of these models",
            remedy="tighten its threshold, or take it away: it gives a false sense of safety",
        )
    return Check(name=name, status=CheckStatus.PASSED, required="fails some bad model", reason=f"fails {listed(words)}")


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _trial_facts(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "what": trial.what,
        "kind": trial.kind,
        "status": "refused" if trial.judged.refused else str(trial.judged.status),
        "failed_by": trial.judged.named(CheckStatus.FAILED),
        "inconclusive_by": trial.judged.named(CheckStatus.INCONCLUSIVE),
        "refused": trial.judged.refused,
        "metrics": {r.name: r.candidate for r in trial.judged.results},
    }


def _rung_facts(rung: Rung) -> dict[str, Any]:
    return {
        "strength": rung.strength,
        "loss": rung.loss,
        "failed": rung.failed,
        "inconclusive": rung.inconclusive,
        "passed": max(0.0, 1 - rung.failed - rung.inconclusive),
        "gates": rung.gates,
    }


def _picture(metric: str, rungs: Sequence[Rung]) -> dict[str, Any]:
    seen = sorted((r for r in rungs if math.isfinite(r.loss.get(metric, math.nan))), key=lambda r: r.loss[metric])
    x = [r.loss[metric] for r in seen]
    return {
        "kind": "lines",
        "title": "What the gates do with a small loss",
        "x_label": f"loss of {metric}",
        "y_label": "share of draws",
        "series": [
            {"name": "failed", "x": x, "y": [r.failed for r in seen], "lo": None, "hi": None},
            {"name": "not passed", "x": x, "y": [r.failed + r.inconclusive for r in seen], "lo": None, "hi": None},
        ],
        "reference": {"y": CAUGHT, "label": "counts as caught"},
        "log_y": False,
    }
