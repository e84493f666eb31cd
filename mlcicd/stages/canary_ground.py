"""What a rollout stands on in a project: its target, its registry, and where its state is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlcicd.config import Project, seconds
from mlcicd.config.canary import Canary
from mlcicd.core.errors import InputError
from mlcicd.core.files import write_atomic
from mlcicd.registry import RegisteredVersion, Registry, promote
from mlcicd.registry.tracking import TAG
from mlcicd.rollout import GuardSpec, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import FileCell, Store, TagCell
from mlcicd.rollout.traffic import Weights
from mlcicd.rollout.windows import read_windows
from mlcicd.stages.places import Place, state_folder
from mlcicd.targets.base import Attended, Target, TargetStatus

WINDOWS_FILE = Path("evidence") / "canary-windows.jsonl"


def judge_spec(settings: Canary) -> JudgeSpec:
    """What the judge is asked, from the configuration. The spec's own checks name what can not be."""
    metrics = []
    for m in settings.metrics:
        rate = m.type == "rate"
        floor = m.floor if m.floor is not None else (0.005 if m.name == "errors" else 0.0)
        metrics.append(
            MetricSpec(
                m.name,
                type=m.type,
                source=m.name,
                direction=m.direction,
                tolerance=m.tolerance if m.tolerance is not None else (1.0 if rate else 1.25),
                margin=m.margin if m.margin is not None or not rate else 2.0,
                floor=floor if rate and m.direction == "lower" else 0.0,
                weight=m.weight,
            )
        )
    limit = settings.max_error_rate
    guards = (GuardSpec("error rate", "errors", limit),) if limit is not None else ()
    no_data = seconds(settings.no_data_timeout)
    return JudgeSpec(
        metrics=tuple(metrics),
        guards=guards,
        alpha=settings.alpha,
        beta=settings.beta,
        min_windows=settings.min_windows,
        min_requests=settings.min_requests,
        step_windows=settings.min_windows,
        no_data_hold_s=min(60.0, no_data),
        no_data_timeout_s=no_data,
        max_duration_s=seconds(settings.max_duration),
    )


def plan_of(settings: Canary, candidate: RegisteredVersion, champion: str) -> Plan:
    return Plan(
        version=candidate.version,
        champion=champion,
        model_digest=candidate.digest,
        spec=judge_spec(settings),
        shares=tuple(percent / 100 for percent in settings.steps),
        window_s=seconds(settings.window),
        max_unattended_s=seconds(settings.max_unattended),
    )


def store_of(project: Project, registry: Registry, where: Place, status: TargetStatus) -> Store:
    """Where the rollout of this environment keeps its state: beside the target's own, or on the tags of the
    version it is compared with."""
    if project.config.canary.state == "target":
        return Store(FileCell(state_folder(project, where.name) / "rollout.json"))

    def on(version: str) -> Store:
        tags = _VersionTags(registry, project.config.model.name, version)
        return Store(TagCell(tags, f"{TAG}rollout.{where.name}", where=f"{tags.name} version {version}"))

    # On the champion's tags: it is there before and after. Once the canary is live, the champion is the previous one.
    for version in filter(None, (status.live, status.previous)):
        store = on(version)
        state = read_state(store)
        if state is not None and state.phase is not Phase.DONE:
            return store
    return on(status.live or "")


class _VersionTags:
    """The tags of one registered version."""

    def __init__(self, registry: Registry, name: str, version: str) -> None:
        self._registry = registry
        self.name = name
        self._version = version

    def all(self) -> Mapping[str, str]:
        return self._registry.version(self.name, self._version).tags if self._version else {}

    def set(self, tags: Mapping[str, str]) -> None:
        self._registry.tag_version(self.name, self._version, tags)


def read_state(store: Store) -> RolloutState | None:
    """The rollout as it was written down last.

    Raises:
        InputError: it can not be read.
    """
    document = store.read()
    return None if document is None else RolloutState.from_json(document)


class TargetTraffic:
    """A deployment target, as a rollout sees it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def look(self) -> Weights:
        status = self._target.status()
        return Weights(status.live, status.canary, status.share)

    def set_share(self, version: str, share: float) -> None:
        self._target.set_share(version, share)

    def attend(self, seconds: float) -> None:
        if isinstance(self._target, Attended):
            self._target.attend(seconds)

    def promote(self, version: str) -> None:
        self._target.promote(version)

    def take_back(self) -> None:
        self._target.abort()

    def revert(self) -> None:
        self._target.rollback()


class RegistryLedger:
    """The model registry, as a rollout sees it. In production the champion alias follows the traffic."""

    def __init__(self, project: Project, registry: Registry, where: Place, candidate: RegisteredVersion) -> None:
        self._rules = project.config.register_
        self._registry = registry
        self._where = where
        self._candidate = candidate

    def promoted(self, version: str) -> None:
        if not self._where.production:
            return
        promote(
            self._registry,
            self._candidate.name,
            version,
            champion_alias=self._rules.champion_alias,
            previous_alias=self._rules.previous_alias,
            expected_champion=self._candidate.tags.get(f"{TAG}measured_against", ""),
            reason=f"promoted by the canary in {self._where.name}",
        )

    def taken_back(self, version: str, outcome: str, reason: str) -> None:
        self._registry.tag_version(self._candidate.name, version, {f"{TAG}canary": f"{outcome}: {reason}"})


class WindowFile:
    """The windows that were judged, as a file of evidence; with it `mlcicd canary replay` repeats the decision."""

    def __init__(self, project: Project) -> None:
        self.path = project.state / WINDOWS_FILE

    def add(self, started: float, windows: Sequence[Window]) -> None:
        """Adds windows of the rollout that was started then; what is there of another one, or again, is replaced."""
        try:
            kept = [w for w in read_windows(self.path) if started <= w.t < windows[0].t] if self.path.exists() else []
        except InputError:
            # Not ours, or cut short by something else: evidence that can not be read is none.
            kept = []
        write_atomic(self.path, "".join(json.dumps(w.to_json()) + "\n" for w in (*kept, *windows)))
