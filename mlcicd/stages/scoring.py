"""A model asked with the project's own settings: its interpreter, its columns, its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlcicd.config import seconds
from mlcicd.evaluation.scoring import Scored, score
from mlcicd.stages.record import Record
from mlcicd.stages.supply import admitted


def scored_here(
    record: Record,
    model: Path,
    digest: str,
    asked: Path | Callable[[], Path],
    data_digest: str,
    what: str,
    *,
    made_here: bool = False,
) -> Scored:
    """What a model answers, once it is admitted by the policy.

    Args:
        asked: the rows, without the target, or a function that writes them; `data_digest` is of what they are from.
        what: the model in words, for messages.
        made_here: it was trained by this very project a moment ago.

    Raises:
        CommandFailed, InputError: as `score`; the policy refuses the model.
    """
    return score_admitted(
        record, admitted(record, model, digest, what, made_here=made_here), digest, asked, data_digest, what
    )


def score_admitted(
    record: Record, model: Path, digest: str, asked: Path | Callable[[], Path], data_digest: str, what: str
) -> Scored:
    """As :func:`scored_here`, of a model that `admitted` has let through."""
    project = record.project
    return score(
        model,
        asked,
        model_digest=digest,
        data_digest=data_digest,
        target=project.config.data.target,
        ignore=project.config.data.ignore,
        python=project.python,
        environ=project.environ,
        cache=project.state / "cache" / "predictions",
        cwd=project.root,
        timeout=seconds(project.config.evaluate.timeout),
        what=what,
        progress=record.progress,
    )
