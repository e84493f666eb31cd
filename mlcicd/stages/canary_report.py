"""What a canary leaves in its verdict: one check a metric, the windows, pictures, and a sentence."""

from __future__ import annotations

import math
from typing import Any

from mlcicd.core.verdict import Check, CheckStatus, Severity, Status
from mlcicd.rollout import Action, Decision, Window
from mlcicd.rollout.controller import Outcome
from mlcicd.rollout.decision import MetricEvidence
from mlcicd.rollout.state import Phase, RolloutState
from mlcicd.stages.canary_ground import WindowFile
from mlcicd.stages.record import Record


def conclude(record: Record, outcome: Outcome) -> Status:
    """Fills the record from where the rollout stands, and gives the stage's status.

    `passed` means that the version was promoted, and nothing else does: a rollout that goes on is `skipped`.
    """
    state, decision = outcome.state, outcome.decision
    evidence(record, state, decision)
    record.outputs["continues"] = str(state.phase is not Phase.DONE).lower()
    requests, errors = state.served
    served = f"{errors} of its {requests} requests failed"
    if state.phase is Phase.WATCHING:
        return _promoted_and_watched(record, outcome)
    if state.phase is not Phase.DONE:
        record.outputs["decision"] = str(decision.action if decision.action is Action.HOLD else Action.CONTINUE)
        record.summary = standing(state, decision)
        return Status.SKIPPED
    record.outputs["decision"] = state.outcome
    by_judge = state.reason.startswith(decision.reason)
    if state.outcome == Action.PROMOTE:
        record.outputs["champion-version"] = state.version
        how = f"promoted after {decision.windows} windows" if by_judge else f"promoted: {state.reason}"
        record.summary = f"version {state.version} {how} ({served})"
        return Status.PASSED
    record.outputs["champion-version"] = state.champion
    if state.outcome == Action.INCONCLUSIVE:
        record.summary = f"version {state.version} taken back undecided: {state.reason}"
        return Status.INCONCLUSIVE
    if state.promoted is not None:
        record.summary = f"version {state.version} was taken back after its promotion: {state.reason}"
        return Status.FAILED
    how = f"rolled back after {decision.windows} windows: {state.reason}" if by_judge else f"taken back: {state.reason}"
    record.summary = f"version {state.version} {how} ({served})"
    return Status.FAILED


def _promoted_and_watched(record: Record, outcome: Outcome) -> Status:
    """Promoted, and nothing is known against it yet: `passed` for the job that promoted it, `skipped` for those that
    look after it."""
    state, decision = outcome.state, outcome.decision
    record.outputs.update({"decision": "promote", "champion-version": state.version})
    requests, errors = state.served
    just_now = bool(outcome.seen) or any("is promoted" in note for note in outcome.notes)
    seen = ", ".join(f"{m.name}: {m.n_canary:,} outcomes" for m in decision.metrics if m.kind == "watch")
    how = f"promoted after {decision.windows} windows ({errors} of its {requests} requests failed)"
    record.summary = f"version {state.version} {how}; what becomes of its predictions is watched by `canary step`"
    if seen and not just_now:
        record.summary = f"version {state.version} is live, and what becomes of its predictions is watched: {seen}"
    return Status.PASSED if just_now else Status.SKIPPED


def standing(state: RolloutState, decision: Decision) -> str:
    """Where an undecided rollout stands, in one line."""
    share = state.observed if state.observed is not None else state.intended
    values = ", ".join(f"{m.name} {m.e_value:.3g} of {m.threshold:.3g}" for m in decision.metrics)
    return (
        f"version {state.version} has {share:.0%} of the traffic (step {state.step + 1}, {state.phase}); "
        f"{decision.windows} windows, e-values: {values}; {decision.action}: {decision.reason}"
    )


def said(window: Window, decision: Decision) -> str:
    """One line about one window."""
    worst = max(decision.metrics, key=lambda m: m.log_e)
    return (
        f"window {decision.windows}: canary {window.canary.requests} requests, {window.canary.errors} errors; "
        f"champion {window.champion.requests}, {window.champion.errors}; {worst.name} e-value "
        f"{worst.e_value:.3g} of {worst.threshold:.3g}: {decision.action}"
    )


def evidence(record: Record, state: RolloutState, decision: Decision) -> None:
    """Windows as a file, one check a metric, and pictures."""
    path = WindowFile(record.project).path
    if path.is_file():
        record.attach(path, "windows")
    record.checks += [_check(metric, decision) for metric in decision.metrics]
    taken_back = state.phase is Phase.DONE and state.outcome == Action.ROLLBACK
    if taken_back and not any(m.breached and m.on_breach == "rollback" for m in decision.metrics):
        record.checks.append(Check(name="canary", status=CheckStatus.FAILED, reason=state.reason))
    record.details["rollout"] = {
        "phase": str(state.phase),
        "step": state.step + 1,
        "share": state.observed,
        "windows": decision.windows,
        "decision": str(decision.action),
        "reason": decision.reason,
        "metrics": decision.to_json()["metrics"],
        "promoted": state.promoted,
        "events": [{"t": event.t, "what": event.what} for event in state.events],
    }
    if state.trace:
        record.figure(*_figures(state, decision))


def _check(metric: MetricEvidence, decision: Decision) -> Check:
    failed = metric.breached
    undecided = metric.promotable is False and decision.action is Action.INCONCLUSIVE
    status = CheckStatus.FAILED if failed else CheckStatus.INCONCLUSIVE if undecided else CheckStatus.PASSED
    return Check(
        name=f"canary {metric.name}",
        status=status,
        observed=", ".join(f"{k} {v:.4g}" for k, v in metric.observed.items()),
        required=f"not provably worse than tolerated (e-value below {metric.threshold:.3g})",
        severity=Severity.FAIL if metric.on_breach == "rollback" else Severity.WARN,
        reason=decision.reason if failed or undecided else "",
        remedy=_remedy(metric) if failed else "",
        details={"e_value": metric.e_value, "canary": metric.n_canary, "champion": metric.n_champion},
    )


def _remedy(metric: MetricEvidence) -> str:
    """Where to look, by what was measured."""
    again = "`mlcicd canary replay --windows .mlcicd/evidence/canary-windows.jsonl` shows every window"
    if metric.name == "latency":
        return (
            f"make the model faster, or accept it with `tolerance` under canary.metrics (a factor; ms above); {again}"
        )
    return f"look for the errors in the version's log (docs/serving.md says where logs are); {again}"


def _figures(state: RolloutState, decision: Decision) -> list[dict[str, Any]]:
    trace = state.trace
    times = [round(p.t - trace[0].t, 1) for p in trace]

    def one(name: str, values: list[float]) -> dict[str, Any]:
        return {"name": name, "x": times, "y": values, "lo": None, "hi": None}

    def lines(title: str, label: str, series: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        shape = {"kind": "lines", "x_label": "seconds", "log_y": False, "reference": None}
        return {**shape, "title": title, "y_label": label, "series": series, **more}

    e_values = [
        one(metric.name, [math.exp(min(p.log_e[at], 700.0)) for p in trace])
        for at, metric in enumerate(decision.metrics)
        # What is only watched after the promotion has no windows.
        if metric.kind != "watch"
    ]
    return [
        lines(
            "Evidence against the canary",
            "e-value",
            e_values,
            log_y=True,
            reference={"y": min(m.threshold for m in decision.metrics), "label": "rolled back here"},
        ),
        lines(
            "Errors",
            "percent of requests",
            [
                one("champion", [_percent(p.champion) for p in trace]),
                one("canary", [_percent(p.canary) for p in trace]),
            ],
        ),
        lines("Traffic to the canary", "percent", [one("share", [100 * p.share for p in trace])], kind="steps"),
    ]


def _percent(counts: tuple[int, int]) -> float:
    requests, errors = counts
    return 100 * errors / requests if requests else 0.0
