"""The seed-noise band: what the candidate's siblings, trained with other seeds, answer on the same holdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlcicd.core.errors import MlcicdError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.source import Source
from mlcicd.evaluation.intervals import MetricResult, estimate
from mlcicd.evaluation.seed_noise import SeedNoise, seed_noise
from mlcicd.registry import Registry
from mlcicd.report.quantities import number
from mlcicd.stages.common import earlier
from mlcicd.stages.evaluate_metrics import Rows
from mlcicd.stages.evaluate_models import Model, answers_of_runs
from mlcicd.stages.record import Record

# Of the candidate's siblings; more make a band little narrower and each has to be fetched and asked.
_MOST = 9


def add_seed_noise(
    record: Record, registry: Registry, holdout: Source, y: Any, candidate: Model, rows: Rows,
    results: Sequence[MetricResult],
) -> None:  # fmt: skip
    """Adds the band of each metric to the verdict's details, and says which gated differences lie within it.

    It informs and blocks nothing: a sibling that can not be asked is told, not an error.
    """
    told = [result for result in results if not result.pairwise and not _own(record, result.name)]
    siblings = _siblings(record, candidate)
    if not siblings or not told:
        return
    values = {result.name: [result.candidate] for result in told}
    try:
        models = [(one["run"], one["digest"]) for one in siblings]
        for predictions in answers_of_runs(record, registry, holdout, models, "seed noise"):
            found = estimate(
                record.project.config.model.task, list(values), y, predictions, sample_weight=rows.weight,
                resamples=100, structure=rows.structure,
            )  # fmt: skip
            for result in found:
                values[result.name].append(result.candidate)
    except MlcicdError as error:
        record.checks.append(_not_asked(error))
        return
    confidence = record.project.config.evaluate.confidence
    bands = {name: seed_noise(each, confidence) for name, each in values.items()}
    known = {name: band for name, band in bands.items() if band is not None}
    record.details["seed_noise"] = {
        name: {"values": list(band.values), "spread": band.spread, "band": band.band} for name, band in known.items()
    }
    compared = [r for r in told if r.name in known and r.difference is not None and not r.identical]
    gated = record.project.config.evaluate.gates
    record.checks += [_beside(result, known[result.name]) for result in compared if result.name in gated]


def _own(record: Record, name: str) -> bool:
    return name in record.project.config.evaluate.metrics


def _siblings(record: Record, candidate: Model) -> list[dict[str, str]]:
    """The other trainings that the last `train` told of; none of a model that an option names."""
    if not candidate.run_id:
        return []
    told = earlier(record.project, "train").details.get("trainings")
    known = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    if not any(one.get("run") == candidate.run_id for one in known):
        return []
    return [one for one in known if one.get("run") != candidate.run_id][:_MOST]


def _beside(result: MetricResult, noise: SeedNoise) -> Check:
    assert result.difference is not None
    difference, many = result.difference, len(noise.values)
    within = noise.holds(difference)
    gap = f"{'+' if difference > 0 else ''}{number(difference)}"
    return Check(
        name=f"{result.name} beside seed noise",
        status=CheckStatus.INCONCLUSIVE if within else CheckStatus.PASSED,
        severity=Severity.WARN,
        observed=difference,
        required=f"beyond ±{number(noise.band)} to be more than the seed",
        reason=f"the difference {gap} is within ±{number(noise.band)}, by which two trainings that differ in the seed "
        f"alone differ ({many} trainings): it may be the seed's, and not the change's"
        if within
        else "",
        remedy="train with more seeds (train.matrix), and compare their means" if within else "",
        details={"values": list(noise.values), "spread": noise.spread, "band": noise.band},
    )


def _not_asked(error: MlcicdError) -> Check:
    return Check(
        name="seed noise",
        status=CheckStatus.SKIPPED,
        severity=Severity.WARN,
        reason=f"a training with another seed could not be asked: {error.one_line()}",
    )
