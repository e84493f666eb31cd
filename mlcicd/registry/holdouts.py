"""Which candidates a holdout has judged: tags of the experiment, one a pair, so that the same one counts once.

A tag is set or not, whoever sets it and however often: two evaluations at once, or one that is killed and run again,
leave the same count. Runs can be deleted and checkouts are fresh; the experiment stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlcicd.registry.tracking import TAG, Registry

_JUDGED = f"{TAG}judged."
_SHORT = 24


def _key(holdout: str, model: str) -> str:
    return f"{_JUDGED}{_short(holdout)}.{_short(model)}"


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:_SHORT]


def judged_models(registry: Registry, experiments: Sequence[str], holdout: str) -> set[str]:
    """The (shortened) digests of the candidates that a holdout has judged, in any of the experiments.

    Raises:
        ServiceError: the server can not be read.
    """
    found: set[str] = set()
    prefix = f"{_JUDGED}{_short(holdout)}."
    for name in experiments:
        with registry._talking("read the experiment"):
            experiment = registry._client.get_experiment_by_name(name)
        if experiment is not None:
            found |= {key.removeprefix(prefix) for key in experiment.tags if key.startswith(prefix)}
    return found


def was_judged(judged: set[str], model: str) -> bool:
    """Whether a model, by its digest, is among them."""
    return _short(model) in judged


def note_judged(registry: Registry, holdout: str, model: str) -> None:
    """Records that a holdout judges a candidate, in the registry's experiment.

    Raises:
        ServiceError: the server can not be written.
    """
    with registry._talking("note the evaluation"):
        try:
            registry._client.set_experiment_tag(registry._experiment_id, _key(holdout, model), "evaluated")
        except Exception:
            # Another evaluation of the same pair may have come first.
            if was_judged(judged_models(registry, [registry.experiment], holdout), model):
                return
            raise
