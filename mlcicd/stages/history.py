"""What the registry knows of a model's champions: the moves, and the state of now. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcicd.config import Project
from mlcicd.registry.approvals import Approval, approvals_of
from mlcicd.registry.journal import DONE, Entry, entries
from mlcicd.registry.tracking import TAG
from mlcicd.report.markup import clean
from mlcicd.stages.common import registry_of
from mlcicd.stages.lineage import aliases_of
from mlcicd.stages.places import place

_SHOWN = 500
_UNDER = {"reason": "why", "run": "run", "evidence": "evidence"}


def history(project: Project) -> list[dict[str, str]]:
    """The moves of the champion and the approvals, newest first: operation, versions, when, who, why, evidence,
    workflow run, outcome.

    Raises:
        ServiceError: the registry does not answer.
    """
    registry, name = registry_of(project), project.config.model.name
    model = registry.model(name)
    if model is None:
        return []
    moves = [_move(entry) for entry in reversed(entries(model.tags))]
    decisions = [(v.version, approval) for v in registry.versions(name) for approval in approvals_of(v.tags)]
    for version, approval in sorted(decisions, key=lambda found: found[1].at):
        # The journal's own order is that of the lock, whatever the clocks say: an approval is put between its moves.
        after = next((i for i, move in enumerate(moves) if move["at"] <= approval.at), len(moves))
        moves.insert(after, _decision(version, approval))
    return moves


def state(project: Project) -> dict[str, Any]:
    """What is champion, what is where, and since when.

    Returns:
        `model`; `aliases`: by alias the version, its digest, its evaluation, since when it is champion, and why a
        canary took it back;
        `unfinished`: how many moves a command has left undone, which the next one mends; `environments`: what each
        has live.

    Raises:
        ServiceError: the registry or a target does not answer.
    """
    rules, name = project.config.register_, project.config.model.name
    registry = registry_of(project)
    model = registry.model(name)
    journal = entries(model.tags if model else {})
    aliases = {}
    for alias in (rules.champion_alias, rules.previous_alias, rules.alias):
        version = registry.version_at(name, alias)
        aliases[alias] = _version(version.version, version.tags) if version else None
    champion = aliases[aliases_of(project).champion]
    if champion is not None:
        last = next((e for e in reversed(journal) if e.outcome == DONE), None)
        champion["since"] = last.at if last is not None and last.after == champion["version"] else ""
    return {
        "model": name,
        "aliases": aliases,
        "unfinished": sum(not e.outcome for e in journal),
        "environments": {name: environment_state(project, name) for name in project.config.deploy.environments},
    }


def history_lines(moves: list[dict[str, str]]) -> list[str]:
    """The history for people: a move a line, its reason under it. What stands in tags stays text on its line."""
    lines = []
    for told in moves:
        move = {key: clean(value, limit=_SHOWN) for key, value in told.items()}
        what = f"version {move['from'] or 'none'} -> {move['to']}"
        if move["environment"]:
            what = f"version {move['to']} for {move['environment']}"
        who = f" by {move['who']}" if move["who"] else ""
        lines.append(f"{move['token']:>4}  {move['at']}  {move['operation']:8}  {what}  {move['outcome']}{who}")
        # After a word, and the line above after its number: what begins with `::` is a command to some CI hosts.
        lines += [f"    {label}: {move[key]}" for key, label in _UNDER.items() if move[key]]
    return lines or ["nothing was promoted yet"]


def state_lines(now: Mapping[str, Any]) -> list[str]:
    """The state for people."""
    lines = []
    for alias, version in now["aliases"].items():
        if version is None:
            lines.append(f"{alias:12} none")
            continue
        shown = {key: clean(value, limit=_SHOWN) for key, value in version.items()}
        since = f" since {shown['since']}" if shown.get("since") else ""
        number = f" ({shown['semver']})" if shown["semver"] else ""
        said = shown["evaluation"] or "unknown"
        lines.append(f"{alias:12} version {shown['version']}{number}{since}  evaluation {said}")
        # How its canary ended is kept with a version that was taken back, and with no other.
        lines += [f"{'':12} canary: {shown['canary']}"] if shown["canary"] else []
    if now["unfinished"]:
        lines.append(f"{now['unfinished']} moves were left undone; the next command that writes mends them")
    for name, here in now["environments"].items():
        parts = [f"live {here['live'] or 'none'}"]
        if here["canary"]:
            parts.append(f"canary {here['canary']} with {here['share']:.0%}")
        if here["previous"]:
            parts.append(f"previous {here['previous']} warm")
        parts.append("healthy" if here["healthy"] else "not running")
        lines.append(f"{name:12} {', '.join(parts)}  {here['url']}")
    return lines


def _move(entry: Entry) -> dict[str, str]:
    return {
        "operation": entry.operation,
        "from": entry.before,
        "to": entry.after,
        "previous": entry.previous_after,
        "at": entry.at,
        "who": entry.who,
        "reason": entry.reason,
        "run": entry.run,
        "model": entry.model_digest,
        "evidence": entry.evidence_digest,
        "outcome": entry.outcome or "unfinished",
        "token": str(entry.epoch),
        "environment": "",
    }


def _decision(version: str, approval: Approval) -> dict[str, str]:
    return {
        "operation": approval.decision,
        "from": "",
        "to": version,
        "previous": "",
        "at": approval.at,
        "who": approval.who,
        "reason": approval.reason,
        "run": approval.run,
        "model": approval.model_digest,
        "evidence": approval.evidence_digest,
        "outcome": "done",
        "token": "",
        "environment": approval.environment,
    }


def _version(version: str, tags: Mapping[str, str]) -> dict[str, str]:
    known = ("semver", "model_digest", "evaluation", "git_commit", "registered_by", "workflow_run", "canary")
    return {"version": version, **{key: tags.get(f"{TAG}{key}", "") for key in known}}


def environment_state(project: Project, name: str) -> dict[str, Any]:
    """What runs in an environment: `live`, `canary` and `previous` version (empty for none), `share` of the canary,
    `healthy`, `url`, and `notices`: what the configuration asks for and is not in force.

    Raises:
        ConfigError: there is no such environment.
        ServiceError: its target does not answer.
    """
    now = place(project, name).target.status()
    return {
        "live": now.live or "",
        "canary": now.canary or "",
        "share": now.share,
        "previous": now.previous or "",
        "healthy": now.healthy,
        "url": now.url,
        "notices": list(now.notices),
    }
