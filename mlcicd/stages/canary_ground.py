"""What a rollout stands on in a project: its target, its registry, and where its state is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlcicd.config import Project, seconds
from mlcicd.config.canary import Canary, CanaryMetric
from mlcicd.core.errors import InputError
from mlcicd.core.files import write_atomic
from mlcicd.registry import Overtaken as OtherChampion
from mlcicd.registry import RegisteredVersion, Registry, promote, recover, restore_previous
from mlcicd.registry.tracking import TAG
from mlcicd.rollout import Arm, GuardSpec, JudgeSpec, MetricSpec, Window
from mlcicd.rollout.labels import Cohort, promotion_line, read_cohorts, read_promotion
from mlcicd.rollout.sources.file import read_file
from mlcicd.rollout.state import Phase, Plan, RolloutState
from mlcicd.rollout.store import FileCell, Store, TagCell
from mlcicd.rollout.traffic import Overtaken, Weights
from mlcicd.stages.git_tags import tag_stage
from mlcicd.stages.lineage import origin_of
from mlcicd.stages.places import Place, state_folder
from mlcicd.stages.record import Record
from mlcicd.targets.base import Attended, Target, TargetStatus

WINDOWS_FILE = Path("evidence") / "canary-windows.jsonl"


def judge_spec(settings: Canary) -> JudgeSpec:
    """What the judge is asked, from the configuration. The spec's own checks name what can not be."""
    guards = [
        GuardSpec(
            guard.name,
            guard.metric,
            guard.limit,
            quantile=guard.quantile,
            direction="lower" if guard.max is not None else "higher",
            weight=guard.weight,
            critical=guard.on_breach == "rollback",
        )
        for guard in settings.guards
    ]
    if settings.max_error_rate is not None:
        guards.insert(0, GuardSpec("error rate", "errors", settings.max_error_rate))
    no_data = seconds(settings.no_data_timeout)
    return JudgeSpec(
        metrics=tuple(spec for metric in settings.metrics for spec in _metric_specs(metric)),
        guards=tuple(guards),
        alpha=settings.alpha,
        beta=settings.beta,
        min_windows=settings.min_windows,
        min_requests=settings.min_requests,
        step_windows=settings.min_windows,
        no_data_hold_s=min(60.0, no_data),
        no_data_timeout_s=no_data,
        max_duration_s=seconds(settings.max_duration),
        undecided="hold" if settings.on_undecided == "hold" else "inconclusive",
        watch_s=settings.watch_s,
    )


def _metric_specs(metric: CanaryMetric) -> list[MetricSpec]:
    """The metric, and one more for each slice: judged for harm alone, and missing without alarm, since a slice may
    well be without requests for an hour. One that is never seen is never passed, either."""
    rate = metric.type == "rate"
    on_breach = metric.on_breach or ("inform" if metric.name == "scores" else "rollback")
    floor = metric.floor if metric.floor is not None else (0.005 if metric.name == "errors" else 0.0)
    tolerance = metric.tolerance if metric.tolerance is not None else (1.0 if rate or metric.two_sided else 1.25)
    gated = metric.gates is not False
    whole = MetricSpec(
        metric.name,
        type=metric.type,
        source=metric.name,
        direction=metric.direction,
        tolerance=tolerance,
        margin=metric.margin if metric.margin is not None or not rate else (2.0 if gated else None),
        floor=floor if rate and metric.direction != "higher" else 0.0,
        weight=metric.weight,
        critical=on_breach == "rollback",
        on_breach="inform" if on_breach == "inform" else "hold",
        label_delay_s=metric.label_delay_s,
    )
    slices = [f"{metric.name}[{part}]" for part in metric.slices]
    weight = metric.slices_weight / max(len(slices), 1)
    return [
        whole,
        *(replace(whole, name=name, source=name, margin=None, weight=weight, required=False) for name in slices),
    ]


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
        self._origin = origin_of(project.environ)

    def promoted(self, version: str) -> None:
        if not self._where.production:
            return
        try:
            promote(
                self._registry,
                self._candidate.name,
                version,
                champion_alias=self._rules.champion_alias,
                previous_alias=self._rules.previous_alias,
                expected_champion=self._candidate.tags.get(f"{TAG}measured_against", ""),
                reason=f"promoted by the canary in {self._where.name}",
                origin=self._origin,
            )
        except OtherChampion as error:
            raise Overtaken(error.what, where=error.where, why=error.why, remedy=error.remedy) from error

    def withdrawn(self, version: str, reason: str) -> None:
        if self._where.production:
            self._champion_goes_back(version, reason)
        self.taken_back(version, "rollback", reason)

    def _champion_goes_back(self, version: str, reason: str) -> None:
        name = self._candidate.name
        champion_alias, previous_alias = self._rules.champion_alias, self._rules.previous_alias
        # A promotion that failed half-way is finished or abandoned first: then the champion is known.
        recover(self._registry, name, champion_alias=champion_alias, previous_alias=previous_alias)
        champion = self._registry.version_at(name, champion_alias)
        # Repeated after it has succeeded it must not go forward again.
        if champion is not None and champion.version == version:
            restore_previous(
                self._registry,
                name,
                champion_alias=champion_alias,
                previous_alias=previous_alias,
                reason=f"taken back in {self._where.name}: {reason}",
            )

    def taken_back(self, version: str, outcome: str, reason: str) -> None:
        self._registry.tag_version(self._candidate.name, version, {f"{TAG}canary": f"{outcome}: {reason}"})


class TaggingLedger(RegistryLedger):
    """The same where there is a clone of the project's repository: in every environment a git tag says which version
    has the traffic, where `register.git_tags` asks for them.

    Args:
        champion: the version that the candidate is compared with, which has the traffic again when it is withdrawn.
    """

    def __init__(
        self, record: Record, registry: Registry, where: Place, candidate: RegisteredVersion, champion: str
    ) -> None:
        super().__init__(record.project, registry, where, candidate)
        self._record = record
        self._champion = champion

    def promoted(self, version: str) -> None:
        super().promoted(version)
        self._tag(version)

    def withdrawn(self, version: str, reason: str) -> None:
        super().withdrawn(version, reason)
        self._tag(self._champion)

    def _tag(self, version: str) -> None:
        tag_stage(self._record, self._where.name, lambda: self._registry.version(self._candidate.name, version))


class WindowFile:
    """The windows that were judged, and the late outcomes, as a file of evidence; with it `mlcicd canary replay`
    repeats the decision."""

    def __init__(self, project: Project) -> None:
        self.path = project.state / WINDOWS_FILE
        self._late = {name for m in project.config.canary.metrics if m.label_delay_s > 0 for name in m.rate_names}

    def add(
        self,
        started: float,
        windows: Sequence[Window],
        cohorts: Sequence[Cohort] = (),
        promoted: float | None = None,
    ) -> None:
        """Adds windows of the rollout that was started then, late outcomes, and when it promoted the canary; what is
        there of another one, or again, is replaced.

        What a window says of an outcome that comes late is not what was judged, and is left out.
        """
        kept, known, before = self._read(started)
        first = windows[0].t if windows else float("inf")
        lines = [w.to_json() for w in kept if w.t < first] + [self._early(w).to_json() for w in windows]
        lines += [cohort.to_json() for cohort in known if cohort not in cohorts] + [c.to_json() for c in cohorts]
        at = before if promoted is None else promoted
        lines += [] if at is None else [promotion_line(at)]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def _read(self, started: float) -> tuple[list[Window], list[Cohort], float | None]:
        if not self.path.exists():
            return [], [], None
        try:
            windows = [window for window in read_file(self.path) if started <= window.t]
            cohorts = [cohort.only(self._late) for cohort in read_cohorts(self.path, 1.0) if started <= cohort.t]
            promoted = read_promotion(self.path)
        except InputError:
            # Not ours, or cut short by something else: evidence that can not be read is none.
            return [], [], None
        if promoted is not None and promoted < started:
            promoted = None
        return windows, [cohort for cohort in cohorts if cohort.names], promoted

    def _early(self, window: Window) -> Window:
        def early(arm: Arm) -> Arm:
            return replace(arm, rates={name: counts for name, counts in arm.rates.items() if name not in self._late})

        return replace(window, champion=early(window.champion), canary=early(window.canary))
