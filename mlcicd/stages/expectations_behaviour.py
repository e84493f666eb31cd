"""Robustness and behavioural expectations as gates: the candidate is asked rows that were changed on purpose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mlcicd.config import FILE_NAME, Project
from mlcicd.config.expectations import Change, Expectation, Expectations, Robustness
from mlcicd.config.load import validate
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.core.yaml_lines import Document, KeyPath, nearest, read_yaml
from mlcicd.data.perturbed import Edit, Sample, Variant
from mlcicd.evaluation.behaviour import Violations, answers, changed, judge_drop, judge_share, metric_drop, moved
from mlcicd.evaluation.predictions import Predictions, prepare
from mlcicd.stages.expectations_asked import PLAIN, Asked, Ground, asking
from mlcicd.stages.record import Record

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class _Perturbation:
    """One robustness gate's one kind of change."""

    rule: Robustness
    number: int
    words: str
    variant: Variant


def read_expectations(project: Project) -> tuple[tuple[Expectation, ...], Document | None]:
    """The expectations of the project's file, and the file's lines; none when no file is named.

    Raises:
        ConfigError: something in the file is wrong; the error names its line.
        InputError: the file is not there.
    """
    named = project.config.evaluate.expectations
    if not named:
        return (), None
    path = project.path(named, ("evaluate", "expectations"))
    if named.endswith((".jsonl", ".ndjson")):
        document = _json_lines(path.read_bytes(), named)
    else:
        document = read_yaml(path, file=named, environ={}, interpolate=False)
    return tuple(validate(Expectations, document.data, document).expectations), document


def _json_lines(raw: bytes, file: str) -> Document:
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"it is larger than {_MAX_BYTES} bytes", file=file)
    items: list[Any] = []
    lines: dict[KeyPath, int] = {}
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        lines["expectations", len(items)] = number
        try:
            items.append(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_refuse))
        except (ValueError, RecursionError) as error:
            raise ConfigError("this line is not JSON", file=file, line=number, why=str(error)[:200]) from error
    if not items:
        raise ConfigError("there are no expectations in it", file=file)
    return Document({"expectations": items}, lines, file)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def behaviour_checks(record: Record, ground: Ground) -> list[Check]:
    """One check for each change of each robustness gate, and for each expectation.

    Raises:
        ConfigError: a column or a value that can not be changed so.
        InputError: the holdout can not be read.
    """
    settings = record.project.config.evaluate
    expectations, document = read_expectations(record.project)
    if not settings.robustness and not expectations:
        return []
    if len(ground.y) == 0:
        raise InputError("the holdout has no rows to try anything on")
    with asking(record, ground) as asked:
        perturbations = [
            p for i, rule in enumerate(settings.robustness) for p in _perturbations(record, asked, i, rule)
        ]
        variants = [
            _variant(expectation, asked.sample, document, number) for number, expectation in enumerate(expectations)
        ]
        asked.ask([*(p.variant for p in perturbations), *variants])
        checks = [_robustness_check(record, asked, p) for p in perturbations]
        line = record.project.document.line(("evaluate", "expectations"))
        for number, (expectation, variant) in enumerate(zip(expectations, variants, strict=True)):
            check = _expectation_check(record, ground, asked, expectation, variant)
            place = document.line(("expectations", number)) if document else None
            details = {**check.details, "line": line, "expectation": f"{settings.expectations}:{place}"}
            checks.append(check.model_copy(update={"details": details}))
    return checks


# --- robustness


def _perturbations(record: Record, asked: Asked, number: int, rule: Robustness) -> list[_Perturbation]:
    sample, ignore = asked.sample, record.project.config.data.ignore
    for place, column in enumerate(rule.columns):
        if column not in sample.columns:
            raise ConfigError(
                f"the holdout has no feature {column!r}{nearest(column, sample.columns)}",
                file=FILE_NAME,
                line=record.project.document.line(("evaluate", "robustness", number, "columns", place)),
            )

    def fitting(columns: list[str]) -> list[str]:
        return [c for c in columns if c not in ignore and (not rule.columns or c in rule.columns)]

    kinds = [
        ("noise", rule.noise, fitting(sample.numeric()), f"noise of {rule.noise:g} sd" if rule.noise else ""),
        ("missing", rule.missing, fitting(list(sample.columns)), f"{rule.missing:.3g} missing" if rule.missing else ""),
        ("swap", rule.swap, fitting(sample.categories()), f"{rule.swap:.3g} swapped" if rule.swap else ""),
    ]
    found = []
    for how, amount, columns, words in kinds:
        if amount is None:
            continue
        if not columns:
            raise ConfigError(
                f"there is no column for {how}",
                file=FILE_NAME,
                line=record.project.document.line(("evaluate", "robustness", number)),
                remedy="noise needs numbers, swap needs text or truth values; name other columns, or take it out",
            )
        variant = Variant(f"robustness {number} {how}", {column: Edit(how, amount) for column in columns})
        found.append(_Perturbation(rule, number, words, variant))
    return found


def _robustness_check(record: Record, asked: Asked, perturbation: _Perturbation) -> Check:
    rule, settings = perturbation.rule, record.project.config.evaluate
    common: dict[str, Any] = {
        "name": f"{rule.metric} under {perturbation.words}",
        "required": f"drop <= {rule.max_drop:g}",
        "severity": Severity(rule.severity),
    }
    details: dict[str, Any] = {
        "line": record.project.document.line(("evaluate", "robustness", perturbation.number)),
        "n": len(asked.y),
        "columns": sorted(perturbation.variant.edits)[:50],
    }
    before, after = asked.answer(PLAIN.name), asked.answer(perturbation.variant.name)
    if isinstance(before, str) or isinstance(after, str):
        return Check(
            **common,
            status=CheckStatus.FAILED,
            reason=f"the model gives no answer: {after if isinstance(after, str) else before}",
            remedy="let the model's pipeline handle such rows (an imputer, unknown categories), or take the gate away",
            details=details,
        )
    drop = metric_drop(
        record.project.config.model.task,
        rule.metric,
        asked.y,
        before,
        after,
        confidence=settings.confidence,
        resamples=settings.resamples,
        sample_weight=asked.weight,
        structure=asked.structure,
    )
    status = judge_drop(drop, rule.max_drop)
    if drop.interval is None:
        return Check(
            **common,
            status=CheckStatus.FAILED,
            reason=f"{rule.metric} can not be compared: {drop.reason}",
            remedy="fix what the reason names; a metric without a value is never a pass",
            details=details,
        )
    seen = (
        f"{rule.metric} goes from {drop.before:.4g} to {drop.after:.4g} on {len(asked.y):,} rows "
        f"(drop {drop.value:.4g}, interval {drop.interval[0]:.4g} to {drop.interval[1]:.4g})"
    )
    reasons = {
        CheckStatus.FAILED: f"{seen}, and at most {rule.max_drop:g} is allowed",
        CheckStatus.INCONCLUSIVE: f"{seen}: whether it is at most {rule.max_drop:g} is not decided",
    }
    remedies = {
        CheckStatus.FAILED: "train with such rows (augmentation), or use features that are less brittle",
        CheckStatus.INCONCLUSIVE: "raise evaluate.sample_rows, or allow a larger drop",
    }
    return Check(
        **common,
        status=status,
        observed=drop.value,
        interval=drop.interval,
        reference=drop.before,
        reason=reasons.get(status, ""),
        remedy=remedies.get(status, ""),
        details=details,
    )


# --- expectations


def _variant(expectation: Expectation, sample: Sample, document: Document | None, number: int) -> Variant:
    """The rows that an expectation is about.

    Raises:
        ConfigError: a column is not there, or can not hold the value.
    """
    name = f"expectation {number}"
    file = document.file if document else ""

    def wrong(text: str, key: str) -> ConfigError:
        line = document.line(("expectations", number, key)) if document else None
        return ConfigError(text, file=file, line=line)

    def check(column: str, value: Any, key: str) -> None:
        if column not in sample.columns:
            raise wrong(f"the holdout has no feature {column!r}{nearest(column, sample.columns)}", key)
        if not sample.accepts(column, value):
            raise wrong(f"the column {column!r} ({sample.columns[column]}) can not hold {value!r}", key)

    if expectation.given is not None:
        for column, value in expectation.given.items():
            check(column, value, "given")
        return Variant(name, given=expectation.given)
    key = "invariant" if expectation.invariant else "directional"
    change = expectation.invariant or expectation.directional
    assert change is not None
    check(change.column, change.set, key)
    if (change.add is not None or change.multiply is not None) and change.column not in sample.numeric():
        raise wrong(f"the column {change.column!r} ({sample.columns[change.column]}) holds no numbers", key)
    return Variant(name, {change.column: _edit(change)})


def _edit(change: Change) -> Edit:
    if change.swap:
        return Edit("swap", 1.0)
    if change.add is not None:
        return Edit("add", change.add)
    if change.multiply is not None:
        return Edit("multiply", change.multiply)
    return Edit("set", value=change.set)


def _expectation_check(
    record: Record, ground: Ground, asked: Asked, expectation: Expectation, variant: Variant
) -> Check:
    required = _required(expectation)
    before, after = asked.answer(PLAIN.name), asked.answer(variant.name)
    try:
        if isinstance(after, str):
            raise ValueError(after)
        if expectation.given is not None:
            return _given_check(record, ground, expectation, after, required)
        if isinstance(before, str):
            raise ValueError(before)
        found = _violations(record, asked, expectation, before, after)
    except ValueError as error:
        return _check(
            expectation,
            required,
            status=CheckStatus.FAILED,
            reason=f"the model gives no answer that could be judged: {error}",
            remedy="let the model answer these rows, or take the expectation away",
        )
    status, interval = judge_share(found, expectation.max_share, record.project.config.evaluate.confidence)
    row = int(asked.rows[found.row])
    seen = f"{found.k:,} of {found.n:,} rows do otherwise; the worst is row {row + 1:,}, by {found.size:.4g}"
    reasons = {
        CheckStatus.FAILED: seen,
        CheckStatus.INCONCLUSIVE: f"{seen}: whether their share is within {expectation.max_share:g} is not decided",
    }
    remedies = {
        CheckStatus.FAILED: "look at that row by hand; constrain the model (monotonic constraints), or its features",
        CheckStatus.INCONCLUSIVE: "raise evaluate.sample_rows",
    }
    return _check(
        expectation,
        required,
        status=status,
        observed=found.share.estimate,
        interval=interval,
        reason=reasons.get(status, ""),
        remedy=remedies.get(status, ""),
        details={"n": found.n, "worst_row": row, "worst_by": found.size},
    )


def _check(expectation: Expectation, required: str, **rest: Any) -> Check:
    name = f"expectation: {expectation.name}"
    return Check(name=name, required=required, severity=Severity(expectation.severity), **rest)


def _violations(
    record: Record, asked: Asked, expectation: Expectation, before: Predictions, after: Predictions
) -> Violations:
    task = record.project.config.model.task
    plain, _ = answers(task, asked.y, before, asked.structure)
    edited, _ = answers(task, asked.y, after, asked.structure)
    if expectation.invariant is not None:
        return changed(plain, edited, expectation.tolerance)
    if plain.ndim != 1 or task == "multiclass":
        raise ValueError("a direction needs one score, or value, a row, and this model answers several")
    assert expectation.direction is not None
    return moved(plain, edited, expectation.direction, expectation.tolerance)


def _given_check(record: Record, ground: Ground, expectation: Expectation, answer: Predictions, required: str) -> Check:
    """Whether the one row is answered as it must be.

    Raises:
        ValueError: the model's answer can not be read.
    """
    expected = expectation.answer
    assert expected is not None
    task = record.project.config.model.task
    view, classes = _one_answer(task, ground, answer)
    observed: float | str
    problems = []
    if expected.label is not None:
        if task == "regression":
            raise ValueError("a regression has no labels: give min and max")
        if view.labels is None:
            raise ValueError(view.labels_reason or "the model gave no label")
        observed = str(classes[int(view.labels[0])])
        if observed not in (str(expected.label), _as_number(expected.label)):
            problems.append(f"it answers {observed}")
    if expected.min is not None or expected.max is not None:
        if view.scores is None or view.scores_reason or view.scores.ndim != 1:
            raise ValueError(view.scores_reason or "there is no single score, or value, to bound")
        value = float(view.scores[0])
        observed = value
        low_enough = expected.max is None or value <= expected.max
        if not (low_enough and (expected.min is None or value >= expected.min)):
            problems.append(f"it answers {value:.4g}")
    return _check(
        expectation,
        required,
        status=CheckStatus.FAILED if problems else CheckStatus.PASSED,
        observed=observed,
        reason=" and ".join(problems),
        remedy="add rows like this one to the training data, or correct the expectation" if problems else "",
    )


def _one_answer(task: str, ground: Ground, answer: Predictions) -> tuple[Any, tuple[Any, ...]]:
    """The answer in the holdout's encoding: beside the holdout's own rows, whose labels name the classes."""
    import numpy as np

    whole = prepare(task, ground.y, ground.predictions, structure=ground.structure)
    if whole.reason:
        raise ValueError(whole.reason)
    named = answer
    if task != "regression" and answer.classes is None:
        named = Predictions(answer.labels, answer.scores, whole.classes)
    row = prepare(task, np.asarray(ground.y)[:1], named, structure=ground.structure.take(np.arange(1)))
    if row.reason:
        raise ValueError(row.reason)
    return row.candidate, row.classes


def _as_number(value: Any) -> str:
    """Classes that are numbers are kept as fractions: the label 1 is the class 1.0."""
    return str(float(value)) if isinstance(value, bool | int | float) else str(value)


def _required(expectation: Expectation) -> str:
    if expectation.answer is not None:
        expected = expectation.answer
        words = [f"the label {expected.label}"] if expected.label is not None else []
        words += [f">= {expected.min:g}"] if expected.min is not None else []
        words += [f"<= {expected.max:g}"] if expected.max is not None else []
        return " and ".join(words)
    change = expectation.invariant or expectation.directional
    assert change is not None
    what = {
        "set": f"{change.column} is {change.set}",
        "add": f"{change.column} grows by {change.add}",
        "multiply": f"{change.column} is multiplied by {change.multiply}",
        "swap": f"{change.column} is another row's",
    }[_edit(change).how]
    where = {"not_lower": "does not fall", "not_higher": "does not rise"}.get(expectation.direction or "", "stays")
    few = f" in all but {expectation.max_share:.3g} of rows" if expectation.max_share else ""
    return f"the answer {where} when {what}{few}"
