"""What the candidate answers to rows that were changed on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlcicd.core.digests import digest_file
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.data.perturbed import Sample, Variant
from mlcicd.data.source import Source
from mlcicd.evaluation.predictions import Predictions, Structure, take
from mlcicd.registry import Registry
from mlcicd.stages.evaluate_models import Model, as_predictions
from mlcicd.stages.record import Record
from mlcicd.stages.scoring import score_admitted
from mlcicd.stages.supply import admitted

PLAIN = Variant("the rows as they are")
_SEED = 20
# Each variant alone is a process of its own: beyond this many, one that fails is not looked for.
_MOST_ALONE = 12


@dataclass(frozen=True)
class Ground:
    """What an evaluation has in hand when its further gates are judged.

    Attributes:
        candidate, champion: the models; a candidate that is a file of answers can not be asked anything new.
        predictions, champion_predictions: what they answered on the holdout.
        weight: (n,) sample weights, or None.
        structure: how the rows hang together.
    """

    registry: Registry
    holdout: Source
    y: np.ndarray[Any, Any]
    candidate: Model
    predictions: Predictions
    champion: Model | None = None
    champion_predictions: Predictions | None = None
    weight: Any = None
    structure: Structure = field(default_factory=Structure)


class Asked:
    """A sample of the holdout, and what the candidate answers to variants of it.

    Attributes:
        rows: numbers of the sampled rows in the holdout, ascending.
        y, weight, structure: theirs.
    """

    def __init__(self, record: Record, ground: Ground, sample: Sample, rows: np.ndarray[Any, Any]) -> None:
        self._record = record
        self._ground = ground
        self.sample = sample
        self.rows = rows
        self.y = ground.y[rows]
        self.weight = None if ground.weight is None else np.asarray(ground.weight)[rows]
        self.structure = ground.structure.take(rows)
        self._answers: dict[str, Predictions | str] = {}
        self._path = ground.candidate.path

    def ask(self, variants: Sequence[Variant]) -> None:
        """Scores the plain sample and the variants in as few processes as can be."""
        if self._ground.candidate.answers is not None:
            self._answers = dict.fromkeys(
                (v.name for v in (PLAIN, *variants)), "there is no model to ask: only its predictions are here"
            )
            return
        # Outside of what is forgiven below: a model that is refused, or was changed, is no answer to a row.
        candidate = self._ground.candidate
        self._path = admitted(self._record, candidate.path, candidate.digest, "candidate")
        # A hole makes a column of whole numbers one of fractions, for every row of its file.
        self._batch([PLAIN, *(v for v in variants if not v.leaves_holes)])
        self._batch([v for v in variants if v.leaves_holes])

    def answer(self, name: str) -> Predictions | str:
        """What the candidate answered to a variant, or why it did not."""
        return self._answers[name]

    def _batch(self, variants: list[Variant]) -> None:
        if not variants:
            return
        try:
            self._answers |= self._score(variants)
        except (CommandFailed, InputError) as error:
            if len(variants) == 1 or len(variants) > _MOST_ALONE:
                said = error.one_line() + "".join(f"; {line}" for line in error.log[-1:])
                self._answers |= dict.fromkeys((v.name for v in variants), said)
                return
            # One of them does it: each alone says which.
            for variant in variants:
                self._batch([variant])

    def _score(self, variants: list[Variant]) -> dict[str, Predictions | str]:
        project = self._record.project
        rows = [1 if v.given is not None else self.sample.rows for v in variants]
        what = f"candidate on {sum(rows):,} changed rows" if variants != [PLAIN] else "candidate on a sample"
        self._record.progress.step(f"scoring the {what}")
        with self.sample.written(variants, project.state / "cache") as path:
            digest = self._ground.candidate.digest
            scored = score_admitted(self._record, self._path, digest, path, digest_file(path), what)
        if len(scored.answer) != sum(rows):
            raise InputError(f"the model answered {len(scored.answer):,} rows for {sum(rows):,}")
        predictions = as_predictions(self._record, scored)
        ends = np.cumsum(rows)
        return {
            variant.name: take(predictions, np.arange(end - count, end))
            for variant, count, end in zip(variants, rows, ends, strict=True)
        }


@contextmanager
def asking(record: Record, ground: Ground) -> Iterator[Asked]:
    """A seeded sample of the holdout of at most `evaluate.sample_rows` rows."""
    n = len(ground.y)
    size = min(n, record.project.config.evaluate.sample_rows)
    rows = np.sort(np.random.default_rng(_SEED).choice(n, size, replace=False))
    with Sample(ground.holdout, record.project.config.data.target, rows.tolist(), seed=_SEED) as sample:
        yield Asked(record, ground, sample, rows)
