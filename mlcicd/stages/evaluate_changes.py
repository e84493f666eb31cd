"""Which part of a difference to the champion comes from the code, and which from the data it was trained on.

Candidate and champion are two of four models; the new code on the old data and the old code on the new data are looked
up among the runs there are, and trained where `evaluate.attribution.train` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlcicd.config import seconds
from mlcicd.core.errors import MlcicdError
from mlcicd.core.verdict import Check
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.two_factors import Order, Share, Split, split
from mlcicd.stages.change_words import neither, not_known, told
from mlcicd.stages.common import readable_registries
from mlcicd.stages.evaluate_metrics import Rows, own_metric
from mlcicd.stages.evaluate_models import answers_of_runs
from mlcicd.stages.expectations import Ground
from mlcicd.stages.record import Record
from mlcicd.stages.train_crossed import Origin, find_crossed, train_crossed

NEW_CODE, OLD_CODE = "the new code on the old data", "the old code on the new data"
_REMEDY = "set evaluate.attribution.train: what is missing is then trained"


@dataclass
class _Crossings:
    """The models of the two crossed trainings: run and answers by what they are, and why others are not known."""

    runs: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Predictions] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


def add_change_origin(record: Record, ground: Ground, results: Sequence[MetricResult]) -> None:
    """Splits the difference of each gated metric, in checks of severity `warn`: they inform, and block nothing."""
    champion, candidate = ground.champion, ground.candidate
    gates = record.project.config.evaluate.gates
    gated = [one for one in results if one.name in gates and _differs(one)]
    if champion is None or not gated or not candidate.run_id or not champion.run_id:
        return
    try:
        new, old = (Origin.of_run(ground.registry, one.run_id) for one in (candidate, champion))
    except MlcicdError as error:
        _say(record, not_known(f"the runs can not be read: {error.one_line()}"))
        return
    if not all((new.code, new.data, old.code, old.data)):
        whose = "champion" if new.code and new.data else "candidate"
        _say(record, not_known(f"the {whose}'s run does not say which code and data it was trained from"))
        return
    if new.code == old.code or new.data == old.data:
        _one_factor(record, gated, code=new.code != old.code, data=new.data != old.data)
        return
    crossings = _crossings(record, ground, new, old)
    if not crossings.answers:
        reason = _lacking(crossings)
        wanted = record.project.config.evaluate.attribution.train
        _say(record, not_known(reason, "" if wanted else _REMEDY))
        return
    splits = [(one, split(one, _orders(record, ground, one, crossings.answers))) for one in gated]
    _report(record, splits, crossings)


def _differs(result: MetricResult) -> bool:
    difference = result.difference
    return not result.pairwise and not result.identical and difference is not None and math.isfinite(difference)


def _one_factor(record: Record, gated: Sequence[MetricResult], *, code: bool, data: bool) -> None:
    """Only one of the two changed, or none: this needs no further model."""
    if not code and not data:
        _say(record, neither())
        return
    none = Share(0.0, (0.0, 0.0))
    for one in gated:
        assert one.difference is not None
        whole = Share(one.difference, one.difference_interval)
        found = Split(one.name, one.difference, whole if code else none, whole if data else none, orders=2)
        _say(record, told(one, found, changed="code" if code else "data"))
        _keep(record, found, {})


def _crossings(record: Record, ground: Ground, new: Origin, old: Origin) -> _Crossings:
    found = _Crossings()
    for what, code, data in ((NEW_CODE, new, old), (OLD_CODE, old, new)):
        try:
            run_id, digest = _model(record, ground, code, data)
            if not run_id:
                found.lacking[what] = "no run has trained it"
                continue
            answers = answers_of_runs(record, ground.registry, ground.holdout, [(run_id, digest)], what)
        except MlcicdError as error:
            found.lacking[what] = error.one_line() + (f" ({error.why})" if error.why else "")
            continue
        found.runs[what], found.answers[what] = run_id, answers[0]
    return found


def _model(record: Record, ground: Ground, code: Origin, data: Origin) -> tuple[str, str]:
    found = find_crossed(readable_registries(record.project, ground.registry), code, data)
    if found[0] or record.dry_run or not record.project.config.evaluate.attribution.train:
        return found
    made = train_crossed(record, ground.registry, code, data)
    return made.run_id, made.digest


def _orders(
    record: Record, ground: Ground, whole: MetricResult, answers: dict[str, Predictions]
) -> list[Order]:  # fmt: skip
    """The steps from the champion to the candidate, in as many orders as there are crossed models."""
    candidate, champion = ground.predictions, ground.champion_predictions
    assert champion is not None
    orders = []
    if (mixed := answers.get(NEW_CODE)) is not None:
        orders.append(
            Order(_step(record, ground, whole, mixed, champion), _step(record, ground, whole, candidate, mixed))
        )
    if (mixed := answers.get(OLD_CODE)) is not None:
        orders.append(
            Order(_step(record, ground, whole, candidate, mixed), _step(record, ground, whole, mixed, champion))
        )
    return orders


def _step(record: Record, ground: Ground, whole: MetricResult, after: Predictions, before: Predictions) -> MetricResult:
    settings = record.project.config.evaluate
    own = settings.metrics.get(whole.name)
    if own is not None:
        # The four steps of a metric share the time of one.
        time = seconds(own.resample_for) / 4
        return own_metric(
            record,
            ground.holdout,
            ground.y,
            (after, before),
            Rows(ground.weight, ground.structure),
            whole.name,
            resample_for=time,
        )
    return estimate(
        record.project.config.model.task, [whole.name], ground.y, after, before, sample_weight=ground.weight,
        confidence=whole.confidence, resamples=settings.resamples, structure=ground.structure,
    )[0]  # fmt: skip


def _report(record: Record, splits: Sequence[tuple[MetricResult, Split | None]], crossings: _Crossings) -> None:
    lacking = _lacking(crossings)
    for result, found in splits:
        if found is None:
            _say(record, not_known(f"{result.name} has no value for one of the crossed trainings"))
            continue
        _say(record, told(result, found, lacking=lacking))
        _keep(record, found, crossings.runs)


def _lacking(crossings: _Crossings) -> str:
    """Which models are not known, and why; those of one reason together."""
    whats: dict[str, list[str]] = {}
    for what, why in crossings.lacking.items():
        whats.setdefault(why, []).append(what)
    return "; ".join(f"{' and '.join(together)}: {why}" for why, together in whats.items())


def _keep(record: Record, found: Split, runs: dict[str, str]) -> None:
    _kept(record)["runs"] = runs
    _kept(record)["metrics"].append(asdict(found))


def _say(record: Record, check: Check) -> None:
    record.checks.append(check)
    _kept(record)["sentences"].append(check.reason)


def _kept(record: Record) -> dict[str, Any]:
    """What the report and a program read of it."""
    found: dict[str, Any] = record.details.setdefault("code_and_data", {"runs": {}, "metrics": [], "sentences": []})
    return found
