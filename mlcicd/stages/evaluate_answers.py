"""What both models answer on the holdout: asked here, or brought along in a file that was written anywhere."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import InputError
from mlcicd.data.aligned import Columns, aligned
from mlcicd.data.questions import questions
from mlcicd.data.source import Source, open_source
from mlcicd.evaluation.predictions import Predictions
from mlcicd.evaluation.scoring import Scored
from mlcicd.stages.evaluate_models import Model, as_predictions, score_model
from mlcicd.stages.record import Record

_CLASSES = ("binary", "multiclass")
_LEVELS = ("quantile", "forecast")
# Of a model that is not here, nothing can be measured; a budget on it is not kept.
_UNKNOWN = {"load_seconds": math.nan, "score_seconds": math.nan, "peak_bytes": math.nan, "latencies_ms": []}


@dataclass(frozen=True)
class Answers:
    """One model's answers to the holdout, and what it took."""

    scored: Scored
    predictions: Predictions


def file_model(record: Record, named: str, what: str) -> Model:
    """A model that is known by a file of its predictions alone.

    Raises:
        InputError: the file is not there.
    """
    path = Path(named) if Path(named).is_absolute() else record.project.root / named
    digest = digest_tree(path)
    record.subject("predictions", what, digest, path=named)
    # There is no model below a file: whoever looks for one finds nothing.
    return Model(path / "model", digest, answers=path)


def answers_of(
    record: Record, holdout: Source, y: Any, candidate: Model, champion: Model | None
) -> tuple[Answers, Answers | None]:
    """Both models' answers. The rows are written out for them only if one has to be asked.

    Raises:
        CommandFailed, InputError: as `scoring.score`; or a file of predictions does not fit the holdout.
    """
    project = record.project
    with ExitStack() as stack:

        @cache
        def asked() -> Path:
            made = questions(holdout, project.config.data.target, project.state / "cache")
            return stack.enter_context(made)

        def one(model: Model, what: str) -> Answers:
            if model.answers is not None:
                return _from_file(record, holdout, y, model.answers, what)
            scored = score_model(record, model, asked, what, len(y))
            return Answers(scored, as_predictions(record, scored))

        return one(candidate, "candidate"), one(champion, "champion") if champion else None


def _from_file(record: Record, holdout: Source, y: Any, path: Path, what: str) -> Answers:
    record.progress.step(f"reading the {what}'s predictions")
    source = open_source(path)
    section = record.project.config.evaluate.predictions
    target = record.project.config.data.target
    keys = _keys(record, source)
    if not keys and section.keys:
        raise InputError(f"the predictions have none of the keys {', '.join(section.keys)}", where=str(path))
    chosen = _chosen(record, source, path)
    labels = [target] if target in source.columns and target not in chosen else []
    found = aligned(holdout, source, keys, [*chosen, *labels])
    if labels:
        _same_labels(found[target], y, target, path)
    matched = f"keys {', '.join(keys)}" if keys else "row order"
    record.details.setdefault("predictions", {})[what] = {"columns": chosen, "matched_by": matched}
    return _answers(record, {name: found[name] for name in chosen}, y, path)


def _keys(record: Record, source: Source) -> list[str]:
    """The configured keys; else those of the leakage check, where the file has any of them."""
    named = record.project.config.evaluate.predictions.keys
    if named:
        return list(named)
    leakage = record.project.config.data.checks.leakage
    known = list(leakage.keys) if leakage else []
    return known if any(key in source.columns for key in known) else []


def _prefix(record: Record) -> str:
    named = record.project.config.evaluate.predictions.prefix
    return named or ("quantile_" if record.project.config.model.task in _LEVELS else "probability_")


def _chosen(record: Record, source: Source, path: Path) -> list[str]:
    """The columns that hold answers.

    Raises:
        InputError: there are none, or they say the same thing twice.
    """
    config = record.project.config
    section, task, prefix = config.evaluate.predictions, config.model.task, _prefix(record)
    each = [name for name in source.columns if name.startswith(prefix)]
    point = [name for name in (section.prediction, section.score) if name in source.columns]
    if task in ("regression", "ranking"):
        chosen = point[:1]
    elif task in _CLASSES:
        if section.score in point and each:
            raise InputError(
                f"both {section.score!r} and {each[0]!r} hold scores", where=str(path), remedy="write one of them"
            )
        chosen = [*point, *each] if task == "binary" else [*(n for n in point if n == section.prediction), *each]
    else:
        chosen = each or ([n for n in point if n == section.prediction] if task == "forecast" else [])
    if not chosen:
        raise InputError(
            f"there is no column of predictions for a {task} model",
            where=str(path),
            why=f"Its columns are {', '.join(list(source.columns)[:12])}.",
            remedy=f"name one {section.prediction!r} (a class or a value), {section.score!r} (of the positive class) "
            f"or {prefix + '<class>'!r}, or say under evaluate.predictions how yours are named",
        )
    return chosen


def _answers(record: Record, found: Columns, y: Any, path: Path) -> Answers:
    config = record.project.config
    section, task, prefix = config.evaluate.predictions, config.model.task, _prefix(record)
    each = [name for name in found if name.startswith(prefix)]
    names = [name.removeprefix(prefix) for name in each]
    if task in _CLASSES:
        label = found.get(section.prediction)
        scores: Any = _numbers(found, [section.score], path)[:, 0] if section.score in found else None
        classes: list[Any] | None = None
        if each:
            if len(each) == 1:
                raise InputError(
                    f"{each[0]!r} is the only class with a column",
                    where=str(path),
                    remedy=f"write a column for every class, or call it {section.score!r}",
                )
            scores, classes = _numbers(found, each, path), _as_labels(names, y, path)
        if scores is not None and label is not None:
            scored = Scored(scores, {**_UNKNOWN, "classes": classes})
            return Answers(scored, Predictions(labels=label, scores=scores, classes=classes))
        answer = scores if scores is not None else label
        scored = Scored(np.asarray(answer), {**_UNKNOWN, "classes": classes})
        made = Predictions(scores=scores, classes=classes) if scores is not None else as_predictions(record, scored)
        return Answers(scored, made)
    if each:
        order = _order(record, names, path)
        answer = _numbers(found, [each[i] for i in order], path)
        classes = [names[i] for i in order]
    else:
        answer, classes = _numbers(found, list(found), path)[:, 0], None
    scored = Scored(answer, {**_UNKNOWN, "classes": classes})
    return Answers(scored, as_predictions(record, scored))


def _order(record: Record, names: list[str], path: Path) -> list[int]:
    """Where the columns of the configured labels or levels are, in the configured order."""
    section = record.project.config.model
    if section.task == "multilabel":
        wanted: list[Any] = list(section.labels) or names
        have: list[Any] = names
    else:
        wanted, have = list(section.quantiles), _as_floats(names, path)
    if sorted(map(str, wanted)) != sorted(map(str, have)):
        raise InputError(
            f"the columns are of {', '.join(map(str, have))}, and {', '.join(map(str, wanted))} are configured",
            where=str(path),
            remedy="write one column for each, or correct model.labels or model.quantiles",
        )
    return [have.index(one) for one in wanted]


def _numbers(found: Columns, names: list[str], path: Path) -> np.ndarray[Any, Any]:
    """(n, k) as float64; a hole is NaN, which no gate lets pass."""
    columns = []
    for name in names:
        try:
            columns.append(found[name].astype(np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"the column {name!r} holds something else than numbers", where=str(path)) from error
    return np.column_stack(columns)


def _as_labels(names: list[str], y: Any, path: Path) -> list[Any]:
    """Names of classes with the type of the holdout's labels."""
    kind = np.asarray(y).dtype.kind
    if kind == "b":
        words = {"true": True, "1": True, "false": False, "0": False}
        if any(name.lower() not in words for name in names):
            raise InputError(f"the classes are {', '.join(names)}, and the labels true and false", where=str(path))
        return [words[name.lower()] for name in names]
    return list(_as_floats(names, path)) if kind in "iuf" else names


def _as_floats(names: list[str], path: Path) -> list[float]:
    try:
        return [float(name) for name in names]
    except ValueError:
        raise InputError(
            f"the columns are named after {', '.join(names)}, and numbers are needed", where=str(path)
        ) from None


def _same_labels(given: np.ndarray[Any, Any], y: Any, target: str, path: Path) -> None:
    """A file that repeats the labels shows whether its rows are the holdout's."""
    truth = np.asarray(y)
    if truth.ndim != 1 or any(isinstance(a[0], list | np.ndarray) for a in (given, truth) if len(a)):
        return
    numbers = all(a.dtype.kind in "biuf" for a in (given, truth))
    if numbers:
        differ = ~((given == truth) | (np.isnan(given.astype(float)) & np.isnan(truth.astype(float))))
    else:
        differ = given.astype(str) != truth.astype(str)
    if differ.any():
        row = int(np.flatnonzero(differ)[0])
        raise InputError(
            f"{int(differ.sum()):,} rows have another {target!r} than the holdout; the first is row {row + 1}, with "
            f"{str(given[row])[:40]} for {str(truth[row])[:40]}",
            where=str(path),
            why="These are predictions of other rows, or they are in another order.",
            remedy="write the keys beside the predictions, and name them under evaluate.predictions.keys",
        )
