"""The model card: Markdown with the front matter of Hugging Face, filled from the verdicts, with blanks for people.

The card is a file in the repository. What stands between `<!-- mlcicd:NAME -->` and `<!-- /mlcicd:NAME -->` is
written anew each time; everything else is a person's, and is kept as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mlcicd.core.verdict import Verdict
from mlcicd.supply_chain.controls import BLANKS, Served

NOT_WRITTEN = "**To be written by a person.**"
_TITLES = {
    "intended-use": "Intended use",
    "impact": "Impact",
    "oversight": "Oversight",
    "data-origin": "Origin of the data",
    "limitations": "Limitations",
}
_PIPELINES = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "regression": "tabular-regression",
}
_OURS = ("model-index", "pipeline_tag", "library_name")
_FRONT = re.compile(r"\A---\n(.*?)^---\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Escapes:
    """How text that came from somewhere else becomes Markdown that means only itself."""

    prose: Callable[[object], str]
    code: Callable[[object], str]
    # One line of plain text, for the front matter, which others find by its lines of dashes.
    plain: Callable[[object], str]


def model_card(
    written: str,
    *,
    name: str,
    task: str,
    evaluation: Verdict,
    served: Sequence[Served],
    escapes: Escapes,
) -> str:
    """The card, from what is in the repository (empty for none) and the evaluation.

    Parts of ours that a person took out stay out, and those that are missing from an old card are not added.
    """
    blocks = _blocks(evaluation, served, escapes)
    front, body = _split(written)
    if not body.strip():
        body = _template(name, blocks, escapes)
    for key, text in blocks.items():
        body = _renewed(body, f"<!-- mlcicd:{key} -->", f"<!-- /mlcicd:{key} -->", text)
    document = {**front, **_front_matter(name, task, evaluation, escapes)}
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=1 << 20)}---\n{body}"


def _renewed(body: str, opener: str, closer: str, text: str) -> str:
    """Puts the text between each opener and the next closer; an opener without one is left alone.

    In linear time, whatever people wrote: nothing is looked for twice.
    """
    parts: list[str] = []
    at = 0
    while True:
        start = body.find(opener, at)
        end = body.find(closer, start + len(opener)) if start >= 0 else -1
        if end < 0:
            return "".join([*parts, body[at:]])
        parts.append(f"{body[at:start]}{opener}\n{text}\n{closer}")
        at = end + len(closer)


def blanks_of(card: str) -> list[str]:
    """The headings below which a person has not written yet."""
    return [title for title in _TITLES.values() if re.search(rf"^## {title}\n+{re.escape(NOT_WRITTEN)}", card, re.M)]


def _split(written: str) -> tuple[dict[str, Any], str]:
    """The front matter's keys that are a person's, and the text behind it."""
    text = written.replace("\r\n", "\n")
    match = _FRONT.match(text)
    if match is None:
        return {}, text
    try:
        front = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, RecursionError):
        # Not ours to mend: it stays where a person sees it.
        return {}, text
    if not isinstance(front, dict):
        return {}, text[match.end() :]
    return {key: value for key, value in front.items() if key not in _OURS}, text[match.end() :]


def _front_matter(name: str, task: str, evaluation: Verdict, escapes: Escapes) -> dict[str, Any]:
    metrics = [
        {"type": escapes.plain(result.get("name")), "value": float(result["candidate"])}
        for result in _results(evaluation)
        if isinstance(result.get("candidate"), int | float) and math.isfinite(result["candidate"])
    ]
    holdout = evaluation.subject("data", "holdout")
    result = {
        "task": {"type": _PIPELINES.get(task, "other")},
        "dataset": {"name": "holdout", "type": "holdout", "revision": holdout.digest if holdout else ""},
        "metrics": metrics,
    }
    return {
        "library_name": "mlflow",
        "pipeline_tag": _PIPELINES.get(task, "other"),
        "model-index": [{"name": escapes.plain(name), "results": [result]}],
    }


def _template(name: str, blocks: Mapping[str, str], escapes: Escapes) -> str:
    parts = [f"# {escapes.prose(name)}", _marked("summary", blocks)]
    for key, title in _TITLES.items():
        parts.append(f"## {title}\n\n{NOT_WRITTEN} {BLANKS[key]}")
    parts += [
        f"## Figures\n\n{_marked('metrics', blocks)}",
        f"## What was checked\n\n{_marked('checks', blocks)}",
        f"## Lineage\n\n{_marked('lineage', blocks)}",
        f"## Where evidence can be found\n\n{_marked('controls', blocks)}",
    ]
    return "\n" + "\n\n".join(parts) + "\n"


def _marked(key: str, blocks: Mapping[str, str]) -> str:
    return f"<!-- mlcicd:{key} -->\n{blocks[key]}\n<!-- /mlcicd:{key} -->"


def _blocks(evaluation: Verdict, served: Sequence[Served], escapes: Escapes) -> dict[str, str]:
    prose, code = escapes.prose, escapes.code
    rows = [
        [code(r.get("name")), prose(_number(r.get("candidate"))), prose(_interval(r.get("candidate_interval"))),
         prose(_number(r.get("champion")))]
        for r in _results(evaluation)
    ]  # fmt: skip
    checks = [
        [prose(c.name), prose(c.slice), prose(c.status), prose(_number(c.observed)), prose(c.required)]
        for c in evaluation.checks
    ]
    subjects = [[prose(s.kind), prose(s.name), code(s.digest)] for s in evaluation.subjects]
    controls = [[prose(s.framework), prose(s.control), prose(s.about), code(s.evidence)] for s in served]
    return {
        "summary": f"Evaluated {evaluation.finished:%Y-%m-%d}: {prose(evaluation.status)}. {prose(evaluation.summary)}",
        "metrics": _table(("metric", "value", "interval", "champion"), rows),
        "checks": _table(("check", "slice", "status", "seen", "required"), checks),
        "lineage": _table(("kind", "name", "digest"), subjects),
        "controls": _table(("framework", "control", "about", "evidence"), controls),
    }


def _results(evaluation: Verdict) -> list[dict[str, Any]]:
    return [result for result in evaluation.details.get("metrics", []) if isinstance(result, dict)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None."
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell or ' ' for cell in row)} |" for row in rows)])


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _interval(value: Any) -> str:
    return f"{_number(value[0])} to {_number(value[1])}" if isinstance(value, list | tuple) and len(value) == 2 else ""
