"""The judge of a project's canaries, asked by a controller that moves the traffic itself: Argo Rollouts or Flagger."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlcicd.config import Project
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.registry import RegisteredVersion
from mlcicd.registry.approvals import standing_approval
from mlcicd.registry.tracking import TAG
from mlcicd.rollout.asked import Answer, Answered, Asked
from mlcicd.rollout.decision import Action
from mlcicd.rollout.notify import Event, Notification
from mlcicd.rollout.state import Phase
from mlcicd.stages.canary_ground import RegistryLedger, WindowFile, plan_of, store_of
from mlcicd.stages.canary_sources import cohorts_of, router_counts_them, source_of, target_counts_them, teller
from mlcicd.stages.common import registry_of
from mlcicd.stages.places import place
from mlcicd.targets.base import TargetStatus

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about.

    Args:
        version: of the registered model, the canary. champion: the version it runs beside.
        attempt: which try it is; another one begins the same version's test again.
    """

    version: str
    champion: str
    attempt: str = "1"

    def __post_init__(self) -> None:
        for name in ("version", "champion", "attempt"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise InputError(f"no {name} that could be meant: {getattr(self, name)[:80]!r}")


class Answers:
    """Answers for one environment of a project.

    Args:
        project: its configuration says what is judged (`canary`), and where the counts come from.
        environment: name under `deploy.environments`; the last one when empty.
        say: told of what happens, in sentences.

    Raises:
        ConfigError: the counts would have to come from a router of ours, or cannot come at all.
    """

    def __init__(self, project: Project, environment: str, say: Callable[[str], None]) -> None:
        router_counts_them(project)
        self._project = project
        self._where = place(project, environment)
        target_counts_them(project, self._where.target)
        if project.config.canary.source == "router":
            raise ConfigError(
                "a controller in a cluster moves this traffic: canary.source can not be `router`",
                remedy="set `canary.source: prometheus`, and tell where it is",
            )
        self._registry = registry_of(project)
        self._tell = teller(project)
        self._say = say
        self._told: set[tuple[Subject, Event]] = set()

    @property
    def environment(self) -> str:
        """Its name."""
        return self._where.name

    @property
    def share_of(self) -> Callable[[str], float] | None:
        """Tells the weight of a Flagger `Canary` by its name; None where the target knows no cluster."""
        told: Callable[[str], float] | None = getattr(self._where.target, "flagger_share", None)
        return told

    def ask(self, subject: Subject, share: float) -> Answered:
        """What the controller should do at this share (0 to 1) of the traffic.

        Raises:
            InputError: there is no such version.
            ServiceError: the registry or the source of counts does not answer.
        """
        return self._heard(subject, self._answered(subject, lambda asked: asked.ask(share)))

    def promoted(self, subject: Subject) -> Answered:
        """The version has all the traffic: makes it the champion, if it was let go so far.

        Raises:
            InputError: there is no such version.
            ServiceError: the registry does not answer; the next question tells it.
        """
        return self._heard(subject, self._answered(subject, Asked.promoted))

    def withdrawn(self, subject: Subject, reason: str) -> Answered:
        """The controller has taken the version back by itself."""
        return self._heard(subject, self._asked(subject, self._candidate(subject)).fail(reason))

    def _answered(self, subject: Subject, question: Callable[[Asked], Answered]) -> Answered:
        candidate = self._candidate(subject)
        asked = self._asked(subject, candidate)
        if self._champion(candidate) == candidate.version:
            # Promoted before, or by a person; a controller goes back to the champion through here, too.
            return asked.settled(f"version {candidate.version} is the registry's champion")
        objection = self._objection(candidate, subject)
        answered = asked.fail(objection) if objection else question(asked)
        return self._still_so(answered, candidate)

    def _still_so(self, answered: Answered, candidate: RegisteredVersion) -> Answered:
        """A promotion that is written down holds no longer when the registry has gone back since."""
        state = answered.outcome.state
        if state.phase is not Phase.DONE or state.outcome != Action.PROMOTE:
            return answered
        champion = self._champion(candidate)
        if champion in ("", candidate.version):
            return answered
        reason = f"version {candidate.version} was promoted before, and the champion is version {champion} by now"
        return replace(answered, answer=Answer.FAIL, reason=reason)

    def _champion(self, candidate: RegisteredVersion) -> str:
        """The registry's champion where it has to have the traffic of this environment; empty: none, or elsewhere."""
        if not self._where.production:
            return ""
        alias = self._project.config.register_.champion_alias
        now = self._registry.version_at(candidate.name, alias)
        return now.version if now is not None else ""

    def _candidate(self, subject: Subject) -> RegisteredVersion:
        candidate = self._registry.version(self._project.config.model.name, subject.version)
        if not candidate.digest:
            raise InputError(f"version {subject.version} was not registered by mlcicd")
        return candidate

    def _asked(self, subject: Subject, candidate: RegisteredVersion) -> Asked:
        project, where = self._project, self._where
        status = TargetStatus(where.name, "", subject.champion, subject.version, None, 0.0)
        return Asked(
            plan_of(project.config.canary, candidate, subject.champion),
            store_of(project, self._registry, where, status),
            lambda share_at: source_of(project, champion=subject.champion, canary=subject.version, share_at=share_at),
            RegistryLedger(project, self._registry, where, candidate),
            attempt=subject.attempt,
            journal=WindowFile(project).add,
            cohorts=cohorts_of(project),
        )

    def _objection(self, candidate: RegisteredVersion, subject: Subject) -> str:
        """Why the version may not have traffic whatever the counts say; empty when it may."""
        config = self._project.config
        if self._where.production and config.deploy.mode == "delivery":
            standing = standing_approval(candidate, self._where.name)
            if standing.approval is None:
                who = f"version {candidate.version} may not have this traffic"
                return f"{who}: a person must approve it, and {standing.why}"
        measured = candidate.tags.get(f"{TAG}measured_against", "")
        if measured != subject.champion:
            return f"version {candidate.version} was measured against version {measured or 'none'}"
        champion = self._champion(candidate)
        if champion not in ("", subject.champion, candidate.version):
            return f"the champion is version {champion} by now"
        return ""

    def _heard(self, subject: Subject, answered: Answered) -> Answered:
        """Tells people of what has happened, each thing once while this process lives."""
        for note in answered.outcome.notes:
            self._say(note)
        event: Event | None = None
        if answered.answer is Answer.FAIL:
            event = "inconclusive" if answered.outcome.state.outcome == "inconclusive" else "rollback"
        elif answered.outcome.state.outcome == "promote":
            event = "promote"
        elif any("is asked about" in note for note in answered.outcome.notes):
            event = "start"
        if event is not None and (subject, event) not in self._told:
            self._told.add((subject, event))
            name = self._project.config.model.name
            self._say(f"version {subject.version}: {event}: {answered.reason}")
            why = self._tell(Notification(event, name, subject.version, self._where.name, answered.reason))
            if why:
                self._say(why)
        return answered
