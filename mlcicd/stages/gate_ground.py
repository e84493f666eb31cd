"""What trials of the gates stand on: the gates of now, the holdout, and models' answers to it (scored once, cached)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.errors import InputError
from mlcicd.data.questions import questions
from mlcicd.data.source import Source, open_source
from mlcicd.evaluation import budgets
from mlcicd.evaluation.gate_set import GateSet
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.slices import MISSING, codes_of
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.stages.common import data_path, prepare_data, registry_of
from mlcicd.stages.evaluate_gates import column_values, gate_of, known_columns, known_metrics, slice_gate_of
from mlcicd.stages.evaluate_metrics import rows_of
from mlcicd.stages.evaluate_models import Model, as_predictions, candidate_model, score_model
from mlcicd.stages.record import Record
from mlcicd.stages.reference import champion_version

_FEWEST, _MOST = 2, 30
# Sections of `evaluate` whose gates ask more of a model than its answers to the holdout.
_OTHERS = ("fairness", "calibration", "robustness", "expectations")


@dataclass(frozen=True)
class Ground:
    """Gates over a holdout, and a way to have models answer it.

    Attributes:
        gates: those that read answers, by metrics of ours.
        left_out: names of the gates that trials leave out: budgets, functions of the project's own, expectations.
        categories: columns of few values that no slice gate names, by name.
    """

    record: Record
    registry: Registry
    gates: GateSet
    left_out: tuple[str, ...]
    categories: Mapping[str, Any]
    _asked: Callable[[], Path]

    def answers(self, model: Model, what: str) -> Predictions:
        """What a model answers on the holdout; from the cache where these bytes have answered before."""
        answers = as_predictions(self.record, score_model(self.record, model, self._asked, what, self.gates.n))
        # What scoring cost is a fact about the model; trials are about the gates.
        self.record.details.pop(f"{what}_cost", None)
        return answers

    def fetched(self, version: RegisteredVersion) -> Model:
        """The model of a registered version.

        Raises:
            InputError: its bytes can not be verified, or are not there any more.
        """
        if not version.digest:
            raise InputError("it was not registered by mlcicd: its bytes can not be verified")
        path = self.registry.fetch_model(version.run_id, self.record.project.model_cache, digest=version.digest)
        return Model(path, version.digest, version.run_id, version.version)

    def reference(self, model: str = "") -> tuple[str, Predictions]:
        """The model that trials are made of, in words, and its answers: the champion, else the one last trained.

        Args:
            model: a model directory to take instead.
        """
        champion = None if model else champion_version(self.record.project, self.registry)
        if champion is not None:
            self.record.progress.step(f"fetching the champion, version {champion.version}")
            chosen, words = self.fetched(champion), f"the champion, version {champion.version}"
            what = "champion"
        else:
            chosen, what = candidate_model(self.record, self.registry, model), "candidate"
            # Whether it was trained from the files of now is a question about the model, not about the gates.
            self.record.checks.clear()
            words = f"the model {model}" if model else "the model that was trained last (there is no champion yet)"
        self.record.subject("model", what, chosen.digest, run=chosen.run_id, version=chosen.version)
        return words, self.answers(chosen, what)


@contextmanager
def trial_ground(record: Record) -> Iterator[Ground]:
    """Opens the holdout and reads the gates of mlcicd.yaml.

    Raises:
        ConfigError: a gate names an unknown metric.
        InputError: the holdout is missing or has no rows.
    """
    project = record.project
    settings = project.config.evaluate
    known_metrics(project)
    prepare_data(record)
    holdout = open_source(data_path(record, "holdout"))
    known_columns(project, holdout)
    y = column_values(holdout, project.config.data.target)
    if not len(y):
        raise InputError("the holdout has no rows", where=project.config.data.holdout)
    rows = rows_of(record, holdout)
    slice_gates = [slice_gate_of(gate) for gate in settings.slices if gate.metric not in settings.metrics]
    columns = {name: column_values(holdout, name) for name in dict.fromkeys(gate.by for gate in slice_gates)}
    left_out = [name for name in settings.gates if name in budgets.NAMES or name in settings.metrics]
    gates = GateSet(
        project.config.model.task,
        y,
        [gate_of(name, gate) for name, gate in settings.gates.items() if name not in left_out],
        slice_gates,
        columns,
        settings.confidence,
        settings.resamples,
        settings.no_champion,
        rows.weight,
        rows.structure,
    )
    left_out += [f"{gate.metric} by {gate.by}" for gate in settings.slices if gate.metric in settings.metrics]
    left_out += [name for name in _OTHERS if getattr(settings, name)]
    with ExitStack() as stack:

        @cache
        def asked() -> Path:
            made = questions(holdout, project.config.data.target, project.state / "cache")
            return stack.enter_context(made)

        categories = _categories(record, holdout, set(columns))
        yield Ground(record, registry_of(project), gates, tuple(left_out), categories, asked)


def _categories(record: Record, holdout: Source, known: set[str]) -> dict[str, Any]:
    """Columns of text or truth values, of 2 to 30 values, that the model may see."""
    data = record.project.config.data
    left_out = {data.target, *data.ignore, *known}
    found = {}
    for name, kind in holdout.columns.items():
        if name in left_out or not kind.startswith(("VARCHAR", "ENUM", "BOOLEAN")):
            continue
        values = column_values(holdout, name)
        names, codes = codes_of(name, values, len(values))
        distinct = np.unique(codes).size - (MISSING in names)
        if _FEWEST <= distinct <= _MOST:
            found[name] = values
    return found
