"""gates backtest: the versions of the registry before the gates of now, each against the champion of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, conclude
from mlcicd.evaluation.false_alarms import Alarms, against_itself, enough_draws, equal_models, twins
from mlcicd.evaluation.gate_set import Judged
from mlcicd.evaluation.gate_trials import errors_spread
from mlcicd.evaluation.predictions import Predictions
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.promotion import ROLLED_BACK
from mlcicd.registry.tracking import TAG
from mlcicd.stages.gate_ground import Ground, trial_ground
from mlcicd.stages.gate_self_test import listed
from mlcicd.stages.record import Record, stage
from mlcicd.stages.reference import champion_version

NAME = "gates-backtest"
# Noise, in the answers' own units, that two trainings of one model are taken to differ by where only one is known.
TWIN_NOISE = 0.1


@dataclass(frozen=True)
class Replay:
    """One version before the gates of now.

    Attributes:
        against: the champion of its time; empty when there was none.
        judged: None when it could not be replayed, and `reason` says why.
    """

    version: RegisteredVersion
    against: str
    judged: Judged | None = None
    reason: str = ""

    @property
    def rolled_back(self) -> bool:
        return bool(self.version.tags.get(ROLLED_BACK))

    @property
    def then(self) -> str:
        """What became of it."""
        if self.rolled_back:
            return "rolled back"
        return "promoted" if self.version.tags.get(f"{TAG}promoted_at") else "registered"


@stage(NAME)
def backtest(
    record: Record, *, last: int = 10, draws: int = 0, max_false_alarms: float = 0.1, seed: int = 0
) -> Status | None:
    """Replays registered versions, and counts how often the champion itself would have been stopped.

    All are judged on the holdout of now. The verdict fails when the champion against itself is stopped (failed or
    inconclusive) on more than `max_false_alarms` of the resampled holdouts; what would have become of past versions
    informs, and fails nothing.

    Args:
        last: how many versions to replay, the newest ones.
        draws: resampled holdouts; 0 for 40 to 200, the fewer the larger the holdout.
        seed: of the draws.
    """
    with trial_ground(record) as ground:
        replays, answers = _replayed(record, ground, last)
        newest = champion_version(record.project, ground.registry)
        champion = newest.version if newest is not None and newest.version in answers else max(answers, key=int)
        count = enough_draws(ground.gates.n, draws)
        record.progress.step(f"version {champion} against itself on {count} resampled holdouts")
        own = against_itself(ground.gates, answers[champion], draws=count, seed=seed)
        words, first, second = _pair(ground, replays, answers, champion, seed)
        record.progress.step(f"equal models ({words}) on {count} resampled holdouts")
        equal = equal_models(ground.gates, first, second, draws=count, seed=seed)
        left_out = list(ground.left_out)
        rows = ground.gates.n
    record.checks += [_replay_check(replay) for replay in replays]
    record.checks.append(
        _alarm_check(f"version {champion} against itself", own, max_false_alarms, Severity.FAIL, _LOOSEN)
    )
    record.checks.append(_alarm_check(f"equal models ({words})", equal, max_false_alarms, Severity.WARN, _WIDEN))
    record.details.update(
        {
            "rows": rows,
            "replays": [_facts(replay) for replay in replays],
            "false_alarms": {"itself": _alarm_facts(own), "equal": {**_alarm_facts(equal), "like": words}},
            "not_tried": left_out,
        }
    )
    status = conclude(record.checks)
    stopped = [r for r in replays if r.judged is not None and r.judged.blocked]
    done = sum(r.judged is not None for r in replays)
    record.summary = (
        f"the gates of now would have stopped {len(stopped)} of {done} version{'s' * (done != 1)}; "
        f"on {own.draws} resampled holdouts they stop the champion itself on {own.blocked_share.estimate:.0%}, "
        f"an equal model on {equal.blocked_share.estimate:.0%}"
    )
    return status


_LOOSEN = "loosen the threshold that is named here, or add labelled rows; `mlcicd gates suggest` proposes thresholds"
_WIDEN = "widen the margin that is named here, or add labelled rows; `mlcicd gates suggest` proposes margins"


def _replayed(record: Record, ground: Ground, last: int) -> tuple[list[Replay], dict[str, Predictions]]:
    """The newest versions in the order of their registration, and the answers of all models that were scored."""
    name = record.project.config.model.name
    versions = ground.registry.versions(name)
    if not versions:
        raise InputError(
            f"the registry has no version of {name!r}: there is nothing to replay",
            remedy="register a model first; `mlcicd gates self-test` tries the gates without any version",
        )
    known = {version.version: version for version in versions}
    answers: dict[str, Predictions] = {}
    problems: dict[str, str] = {}

    def ask(version: RegisteredVersion) -> Predictions | None:
        key = version.version
        if key not in answers and key not in problems:
            try:
                answers[key] = ground.answers(ground.fetched(version), f"model of version {key}")
            except (InputError, CommandFailed) as error:
                problems[key] = error.what
        return answers.get(key)

    replays = []
    for version in versions[-last:]:
        against = version.tags.get(f"{TAG}measured_against", "")
        candidate = ask(version)
        champion = ask(known[against]) if against in known else None
        if candidate is None:
            replays.append(Replay(version, against, reason=problems[version.version]))
        elif against and champion is None:
            why = problems.get(against, "it is not in the registry any more")
            replays.append(Replay(version, against, reason=f"its champion, version {against}: {why}"))
        else:
            replays.append(Replay(version, against, ground.gates.judge(candidate, champion)))
    if not answers:
        raise InputError(
            f"no version of {name!r} could be scored on this holdout",
            why="; ".join(f"version {key}: {why}" for key, why in list(problems.items())[:3]),
        )
    return replays, answers


def _pair(
    ground: Ground, replays: Sequence[Replay], answers: dict[str, Predictions], champion: str, seed: int
) -> tuple[str, Predictions, Predictions]:
    """Two models that differ as versions of this project do, in words; else the champion with noise, twice."""
    taken_back = {replay.version.version for replay in replays if replay.rolled_back}
    for replay in reversed(replays):
        new, old = replay.version.version, replay.against
        # A version that was taken back differs from its champion as no equal model does.
        if replay.judged is None or old not in answers or taken_back & {new, old}:
            continue
        if not all(r.identical for r in replay.judged.results) and same_form(answers[new], answers[old]):
            return f"that differ as versions {old} and {new} do", answers[new], answers[old]
    reference = answers[champion]
    spread = errors_spread(ground.gates, reference)
    first, second = twins(reference, strength=TWIN_NOISE, spread=spread, seed=seed)
    return f"version {champion} with noise", first, second


def same_form(one: Predictions, other: Predictions) -> bool:
    def form(answers: Predictions) -> tuple[Any, ...]:
        shapes = (None if part is None else part.shape for part in (answers.labels, answers.scores))
        return (*shapes, *(answers.classes or ()))

    return form(one) == form(other)


def _replay_check(replay: Replay) -> Check:
    name = f"version {replay.version.version}"
    name += f" against {replay.against}" if replay.against else ""
    if replay.judged is None:
        return Check(name=name, status=CheckStatus.SKIPPED, reason=f"it can not be replayed: {replay.reason}")
    judged = replay.judged
    by = listed(judged.named(CheckStatus.FAILED) or judged.named(CheckStatus.INCONCLUSIVE))
    said = f"the gates of now end {judged.status}" + (f" by {by or judged.refused}" if judged.blocked else "")
    surprising = judged.blocked != replay.rolled_back
    return Check(
        name=name,
        status=CheckStatus.FAILED if surprising else CheckStatus.PASSED,
        severity=Severity.WARN,
        observed=str(judged.status),
        reason=f"{said}; it was {replay.then}",
        remedy=_what_to_do(judged.blocked) if surprising else "",
    )


def _what_to_do(blocked: bool) -> str:
    if blocked:
        return "if it did well in use, these gates are too tight, or the holdout of now is not what it was judged on"
    return "see why it was taken back, and whether a gate or a slice on this holdout could have known"


def _alarm_check(name: str, alarms: Alarms, most: float, severity: Severity, remedy: str) -> Check:
    share = alarms.blocked_share
    low, high = share.interval(0.95)
    status = CheckStatus.PASSED if high <= most else CheckStatus.INCONCLUSIVE
    if share.estimate > most:
        status = CheckStatus.FAILED
    named = list(dict.fromkeys([*alarms.failed_by, *alarms.inconclusive_by]))
    parts = f"{alarms.failed} failed and {alarms.inconclusive} inconclusive of {alarms.draws} resampled holdouts"
    reason = f"{parts}, by {listed(named)}" if named else parts
    if status is CheckStatus.INCONCLUSIVE:
        remedy = "make more draws (--draws)"
    return Check(
        name=name,
        status=status,
        severity=severity,
        observed=share.estimate,
        interval=(low, high),
        required=f"<= {most:g} of the holdouts stopped",
        reason=reason,
        remedy="" if status is CheckStatus.PASSED else remedy,
        details=_alarm_facts(alarms),
    )


def _facts(replay: Replay) -> dict[str, Any]:
    judged = replay.judged
    return {
        "version": replay.version.version,
        "against": replay.against,
        "then": replay.then,
        "status": str(judged.status) if judged is not None else "not replayed",
        "failed_by": judged.named(CheckStatus.FAILED) if judged is not None else [],
        "inconclusive_by": judged.named(CheckStatus.INCONCLUSIVE) if judged is not None else [],
        "reason": replay.reason,
        "metrics": {r.name: r.candidate for r in judged.results} if judged is not None else {},
    }


def _alarm_facts(alarms: Alarms) -> dict[str, Any]:
    return {
        "draws": alarms.draws,
        "failed": alarms.failed,
        "inconclusive": alarms.inconclusive,
        "failed_by": dict(alarms.failed_by),
        "inconclusive_by": dict(alarms.inconclusive_by),
    }
