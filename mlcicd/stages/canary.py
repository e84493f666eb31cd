"""canary: a growing share of the traffic, judged window by window, promoted or taken back.

One job may watch it to its end, or jobs of a schedule may each take one step: the rollout's state is kept where the
next one finds it (:mod:`mlcicd.rollout.store`), and each goes on where the last one stopped, or died.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import get_args

from mlcicd.config import seconds
from mlcicd.core.errors import ConfigError, InputError, MlcicdError, ServiceError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status
from mlcicd.registry import RegisteredVersion, Registry
from mlcicd.registry.tracking import TAG
from mlcicd.rollout import Action, Decision
from mlcicd.rollout.controller import Controller, Outcome
from mlcicd.rollout.notify import Event as Told
from mlcicd.rollout.notify import Notification
from mlcicd.rollout.sources import Source
from mlcicd.rollout.state import Phase, RolloutState
from mlcicd.rollout.store import Store
from mlcicd.stages.approve import refuse_revoked
from mlcicd.stages.canary_ground import (
    TaggingLedger,
    TargetTraffic,
    WindowFile,
    judge_spec,
    plan_of,
    read_state,
    store_of,
)
from mlcicd.stages.canary_report import conclude, said
from mlcicd.stages.canary_shadow import shadow
from mlcicd.stages.canary_sources import cohorts_of, router_counts_them, source_of, target_counts_them, teller
from mlcicd.stages.canary_traffic import traffic
from mlcicd.stages.common import registry_of
from mlcicd.stages.lineage import recovered
from mlcicd.stages.places import Place, place
from mlcicd.stages.record import Record, stage
from mlcicd.targets.base import Attended, TargetStatus
from mlcicd.targets.failures import Explaining

__all__ = ["MODES", "canary", "judge_spec"]

# A watch ends here: what becomes of a promoted version's predictions is for steps of a schedule.
_ENDED = (Phase.DONE, Phase.WATCHING)
MODES = ("watch", "start", "step", "status", "promote", "abort", "pause")


@stage("canary")
def canary(
    record: Record, *, environment: str = "", mode: str = "watch", watch_for: str = "", reason: str = ""
) -> Status | None:
    """Walks the waiting version through the traffic steps until the judge decides.

    A watch that is ended early (an error, Ctrl-C, SIGTERM) first gives all traffic back to the champion. The canary
    stays deployed and its evidence is kept, so that the same command goes on at the same step.

    Args:
        environment: name under `deploy.environments`; the last one when empty.
        mode: `watch` to the end; `start` and leave it running; `step` once; `status`; or a person's decision:
            `promote`, `abort`, `pause`.
        watch_for: with `watch` or `start`: watch for at most this long (`15m`), then leave it running.
        reason: why, with `promote` and `abort`; recorded.
    """
    _checked(mode, watch_for)
    project = record.project
    router_counts_them(project)
    where = place(project, environment)
    target_counts_them(project, where.target)
    registry = registry_of(project) if mode == "status" else recovered(record)
    status = where.target.status()
    record.outputs["champion-version"] = status.live or ""
    store = store_of(project, registry, where, status)
    state = _state(record, where, store, mode)
    versions = _versions(status, state, mode)
    if versions is None:
        return _nothing_to_judge(record, where, status.live)
    champion, version = versions
    if state is not None and (state.phase is Phase.DONE or state.version != version):
        # An earlier rollout's, which is over.
        state = None
    record.outputs["model-version"] = version
    candidate = registry.version(project.config.model.name, version)
    record.subject("model", "canary", candidate.digest, version=version)
    job = _Job(record, where, registry, store, candidate, champion, reason, fresh=state is None)
    if state is None and mode in ("step", "status", "pause"):
        record.summary = f"version {version} waits beside version {champion}, and its rollout was not started yet"
        record.outputs["continues"] = "false"
        return Status.SKIPPED
    if state is not None and mode == "status":
        stands = job.status(state)
        _say_who_waits(record, where, version, before=status)
        return stands
    if mode in ("watch", "start", "step", "promote") and (state is None or state.active):
        try:
            refuse_revoked(project, registry, where, version)
            _champion_is_live(record, registry, candidate, champion)
        except ServiceError as error:
            if state is not None and not record.dry_run:
                job.give_back(error.one_line())
            raise
    if record.dry_run:
        share = project.config.canary.steps[0]
        record.summary = f"dry run: would {mode} the rollout of version {version}, which begins with {share:g} %"
        return Status.PASSED
    ended = conclude(record, job.run(mode, seconds(watch_for) if watch_for else None, status.url))
    _say_who_waits(record, where, version, before=status)
    return ended


class _Job:
    """One job's part in a rollout."""

    def __init__(
        self,
        record: Record,
        where: Place,
        registry: Registry,
        store: Store,
        candidate: RegisteredVersion,
        champion: str,
        reason: str,
        *,
        fresh: bool,
    ) -> None:
        project = record.project
        self._record = record
        self._where = where
        self._registry = registry
        self._settings = project.config.canary
        self._champion = champion
        self._version = candidate.version
        self._fresh = fresh
        self._reason = reason or "by hand"
        self._tell = teller(project)
        self._told = Action.CONTINUE
        self._store = store
        target = where.target
        self._counted: Callable[[Callable[[float], float]], Source] = lambda share_at: source_of(
            project, champion=champion, canary=candidate.version, share_at=share_at, counters=target.counters
        )
        self._controller = Controller(
            plan_of(self._settings, candidate, champion),
            store,
            TargetTraffic(target),
            self._counted,
            TaggingLedger(record, registry, where, candidate, champion),
            journal=WindowFile(project).add,
            cohorts=cohorts_of(project),
            explain=self._explain,
        )
        if not isinstance(target, Attended):
            record.checks.append(
                Check(
                    name="max_unattended",
                    status=CheckStatus.FAILED,
                    severity=Severity.WARN,
                    reason=f"the target {where.settings.target!r} can not bring the traffic back by itself",
                    remedy="let steps be taken on a schedule that does not fail, or watch the canary to its end",
                )
            )

    def _explain(self, decision: Decision) -> str:
        """What the version's own log says, where it was taken back for its errors."""
        target = self._where.target
        errors = {part.name for part in self._controller.plan.spec.parts if part.source.startswith("errors")}
        guilty = any(m.breached and m.on_breach == "rollback" and m.name in errors for m in decision.metrics)
        return target.failure(self._version) if guilty and isinstance(target, Explaining) else ""

    def run(self, mode: str, watch_s: float | None, url: str) -> Outcome:
        """Does what the mode says; returns where the rollout stands after it."""
        controller = self._controller
        if mode == "watch" or (mode == "start" and watch_s is not None):
            return self._watch(watch_s, url)
        actions: dict[str, Callable[[], Outcome]] = {
            "start": lambda: self._start(url),
            "pause": controller.pause,
            "promote": lambda: controller.promote(self._reason),
            "abort": lambda: controller.abort(self._reason),
            "step": lambda: self._step(url),
        }
        return self._seen(actions[mode]())

    def status(self, state: RolloutState) -> Status:
        """Says where the rollout stands, and changes nothing."""
        return conclude(self._record, self._controller.peek(state))

    def give_back(self, why: str) -> None:
        """All traffic to the champion, whatever else does not work."""
        try:
            self._controller.suspend(why)
        except MlcicdError as error:
            self._record.progress.step(f"the rollout's state could not be written: {error.one_line()}")
        status = self._where.target.status()
        if status.canary == self._version and status.share > 0:
            self._where.target.set_share(self._version, 0.0)

    def _watch(self, watch_s: float | None, url: str) -> Outcome:
        ends = None if watch_s is None else time.monotonic() + watch_s
        try:
            with traffic(self._record, self._where, self._settings, url):
                outcome = self._seen(self._begin())
                while outcome.state.phase not in _ENDED and (ends is None or time.monotonic() < ends):
                    time.sleep(seconds(self._settings.window))
                    refuse_revoked(self._record.project, self._registry, self._where, self._version)
                    outcome = self._seen(self._controller.step())
            return outcome
        except BaseException as error:
            self.give_back("the watch was ended" if isinstance(error, KeyboardInterrupt) else "the watch failed")
            raise

    def _begin(self) -> Outcome:
        """The shadow, where one is asked for, and then the first step."""
        if self._fresh:
            say = self._record.progress.step
            counted = self._counted
            shadowed = shadow(
                self._where.target, self._settings, self._champion, self._version, say=say, counted=counted
            )
            if shadowed is not None:
                say(shadowed.reason)
                if shadowed.action is not Action.CONTINUE:
                    return self._controller.abort(shadowed.reason, shadowed.action)
        return self._controller.start()

    def _start(self, url: str) -> Outcome:
        if self._settings.shadow is None:
            return self._begin()
        with traffic(self._record, self._where, self._settings, url):
            return self._begin()

    def _step(self, url: str) -> Outcome:
        if self._settings.traffic is None:
            return self._controller.step()
        # Where there is no traffic but ours, there is none between two steps. Steps that all began with the first
        # request would see the same few again and again.
        with traffic(self._record, self._where, self._settings, url, first=secrets.randbelow(2**31)):
            time.sleep(seconds(self._settings.window))
            return self._controller.step()

    def _seen(self, outcome: Outcome) -> Outcome:
        """Says what happened, to the log and to people."""
        for window, decision in outcome.seen:
            self._record.progress.step(said(window, decision))
        for note in outcome.notes:
            self._record.progress.step(note)
            if "starts again" in note:
                self._record.checks.append(
                    Check(name="evidence", status=CheckStatus.FAILED, severity=Severity.WARN, reason=note)
                )
        event = self._event(outcome)
        if event is not None:
            said_why = outcome.state.reason or (outcome.notes[-1] if outcome.notes else outcome.decision.reason)
            why = self._tell(
                Notification(event, self._record.project.config.model.name, self._version, self._where.name, said_why)
            )
            if why:
                self._record.progress.step(why)
        self._told = outcome.decision.action
        return outcome

    def _event(self, outcome: Outcome) -> Told | None:
        state = outcome.state
        if state.phase is Phase.WATCHING:
            return "promote" if any("is promoted" in note for note in outcome.notes) else None
        if state.phase is Phase.DONE and state.promoted is not None and state.outcome == Action.PROMOTE:
            # Told when it was promoted.
            return None
        if state.phase is Phase.DONE:
            found: Told = next((name for name in get_args(Told) if name == state.outcome), "rollback")
            return found
        if any("starts" in note for note in outcome.notes):
            return "start"
        if any("gets" in note for note in outcome.notes):
            return "step"
        held = outcome.decision.action is Action.HOLD and self._told is not Action.HOLD and outcome.seen
        return "hold" if held else None


def _checked(mode: str, watch_for: str) -> None:
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}", remedy=f"choose from {', '.join(MODES)}")
    if watch_for and mode not in ("watch", "start"):
        raise ConfigError("--watch-for goes with the modes watch and start")
    try:
        seconds(watch_for or "0s")
    except (ValueError, KeyError):
        raise ConfigError(f"not a duration: {watch_for!r}", remedy="write a number and a unit, such as 15m") from None


def _state(record: Record, where: Place, store: Store, mode: str) -> RolloutState | None:
    """The rollout as it was written down; `abort` forgets one that can not be read."""
    try:
        return read_state(store)
    except InputError as error:
        if mode != "abort" or record.dry_run:
            raise
        record.progress.step(f"{error.one_line()}: it is forgotten")
        where.target.abort()
        store.discard()
        return None


def _versions(status: TargetStatus, state: RolloutState | None, mode: str) -> tuple[str, str] | None:
    """(champion, canary) of the rollout that is on its way, or that waits; None when there is none.

    Steps go on looking after a promoted version while the next one waits for its start; all other modes mean the next.
    """
    if state is not None and state.phase is not Phase.DONE:
        watched = state.phase is Phase.WATCHING and status.live == state.version
        if watched and mode in ("step", "status"):
            return state.champion, state.version
        unfinished = not state.active and status.canary in (None, state.version)
        if unfinished or status.canary == state.version or (status.canary is None and status.live == state.version):
            return state.champion, state.version
    if status.canary is None or status.live is None:
        return None
    return status.live, status.canary


def _say_who_waits(record: Record, where: Place, version: str, *, before: TargetStatus) -> None:
    """Names a further version that was deployed while the outcomes of `version` are watched."""
    if before.canary is None or before.canary == version or before.live != version:
        return
    now = where.target.status()
    stands = "waits for its `canary start`" if now.canary == before.canary else "was taken out with it"
    record.summary += f"; version {before.canary}, deployed beside it, {stands}"


def _nothing_to_judge(record: Record, where: Place, live: str | None) -> Status:
    if live is None:
        raise InputError(
            f"nothing is deployed in {where.name}", remedy=f"run `mlcicd deploy --environment {where.name}` first"
        )
    record.outputs.update({"decision": "none", "continues": "false", "model-version": live})
    record.summary = f"no canary is waiting in {where.name}: version {live} has all the traffic"
    return Status.SKIPPED


def _champion_is_live(record: Record, registry: Registry, candidate: RegisteredVersion, live: str) -> None:
    """The evidence compares with one champion; the canary must run beside that one."""
    expected = candidate.tags.get(f"{TAG}measured_against", "")
    champion = registry.version_at(candidate.name, record.project.config.register_.champion_alias)
    now = champion.version if champion else ""
    if expected != now:
        raise ServiceError(
            f"the champion is version {now or 'none'}, and version {candidate.version} was measured against "
            f"version {expected or 'none'}",
            why="Somebody promoted another model in between.",
            remedy="evaluate and register again against the champion of now",
        )
    agrees = now == live
    record.checks.append(
        Check(
            name="live version",
            status=CheckStatus.PASSED if agrees else CheckStatus.FAILED,
            observed=f"version {live}",
            required=f"the champion, version {now or 'none'}",
            severity=Severity.WARN,
            reason="" if agrees else "the router's live version is not the registry's champion",
        )
    )
