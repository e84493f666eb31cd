"""A registry with a champion, what is done to it, and what must hold afterwards whatever died in between."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from mlcicd.config import load_project
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import MlcicdError
from mlcicd.core.verdict import Status, Subject, Verdict, now
from mlcicd.registry import Registry, promote, recover, restore_previous

ALIASES = {"champion_alias": "champion", "previous_alias": "previous"}
LEASE = "500ms"
LEASE_S = 0.5
TEMPLATE = "template"

CONFIG = """\
version: 1
model: {{name: {name}, task: binary}}
tracking: {{uri: "{uri}", experiment: fault{artifacts}}}
data: {{train: train.csv, holdout: holdout.csv, target: y}}
train: {{run: "true"}}
register: {{lock_lease: {lease}}}
"""


class Database:
    """The tables beneath MLflow, read and copied without MLflow."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        if self._url.startswith("sqlite:///"):
            with closing(sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=30)) as db, db:
                return db.execute(statement, values).fetchall()
        url = self._url.replace("+psycopg2", "")
        with closing(psycopg2.connect(url)) as db, db, db.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

    def copy(self, source: str, target: str) -> None:
        """A registered model with its versions, tags, aliases and lock under another name."""
        for old, new in ((source, target), *self._locks(source, target)):
            for table in (
                "registered_models", "registered_model_tags", "model_versions", "model_version_tags",
                "registered_model_aliases",
            ):  # fmt: skip
                columns = self._columns(table)
                values = ", ".join("?" if c == "name" else c for c in columns)
                names = ", ".join(columns)
                self.run(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE name = ?", new, old)

    def _locks(self, source: str, target: str) -> list[tuple[str, str]]:
        found = self.run("SELECT name FROM registered_models WHERE name LIKE ?", f"mlcicd-lock--{source}--%")
        return [(name, name.replace(f"--{source}--", f"--{target}--")) for (name,) in found]

    def _columns(self, table: str) -> list[str]:
        if not hasattr(self, "_known"):
            self._known: dict[str, list[str]] = {}
        if table not in self._known:
            if self._url.startswith("sqlite"):
                self._known[table] = [row[1] for row in self.run(f"PRAGMA table_info({table})")]
            else:
                self._known[table] = [
                    row[0]
                    for row in self.run(
                        "SELECT column_name FROM information_schema.columns WHERE table_name = ?", table
                    )
                ]
        return self._known[table]


@dataclass(frozen=True)
class Seen:
    """What the tables say of a model."""

    aliases: dict[str, str]
    versions: dict[str, dict[str, str]]
    tags: dict[str, str]
    locks: dict[str, dict[str, str]]

    @property
    def champion(self) -> str:
        return self.aliases.get("champion", "")

    @property
    def previous(self) -> str:
        return self.aliases.get("previous", "")

    def open_intents(self) -> list[str]:
        epochs = {k.rpartition(".")[2] for k in self.tags if k.startswith("mlcicd.journal.")}
        closed = {k.rpartition(".")[2] for k in self.tags if k.startswith("mlcicd.outcome.")}
        return sorted(epochs - closed)


@dataclass
class World:
    """One tracking server with a template: version 2 champion, 1 previous, 3 and 4 waiting, all with evidence."""

    uri: str
    database: Database
    folder: Path
    run_id: str = ""
    digest: str = ""
    broken: list[str] = field(default_factory=list)
    _names: Any = field(default_factory=itertools.count)

    def registry(self, uri: str = "") -> Registry:
        local = self.uri.startswith("sqlite")
        place = (self.folder / "artifacts").as_uri() if local else None
        return Registry(uri or self.uri, experiment="fault", artifact_location=place, lease_s=LEASE_S)

    def make_template(self) -> dict[str, Any]:
        """To be run in a child: this process must have no connection that its forks would share."""
        registry = self.registry()
        model = self.folder / "model"
        model.mkdir()
        (model / "MLmodel").write_text("flavors: {}\n")
        run_id = registry.start_run("fault", {"mlcicd.fingerprint": "f"})
        registry.log_model(run_id, model)
        registry.finish_run(run_id, "FINISHED")
        for number in range(1, 5):
            tags = {"mlcicd.content": f"content {number}", "mlcicd.evidence_digest": "e", "mlcicd.model_digest": "d"}
            registry.create_version(TEMPLATE, run_id, tags)
        registry.set_alias(TEMPLATE, "challenger", "4")
        promote(registry, TEMPLATE, "1", expected_champion="", reason="first", **ALIASES)
        promote(registry, TEMPLATE, "2", expected_champion="1", reason="second", **ALIASES)
        return {"run_id": run_id, "digest": digest_tree(model)}

    def fresh(self) -> str:
        """A new model in the template's state."""
        name = f"m{next(self._names)}"
        self.database.copy(TEMPLATE, name)
        return name

    def look(self, name: str) -> Seen:
        def pairs(table: str, of: str) -> dict[str, str]:
            return dict(self.database.run(f"SELECT key, value FROM {table} WHERE name = ?", of))

        run = self.database.run
        rows = run("SELECT version FROM model_versions WHERE name = ? AND current_stage <> 'Deleted_Internal'", name)
        versions: dict[str, dict[str, str]] = {str(version): {} for (version,) in rows}
        for version, key, value in run("SELECT version, key, value FROM model_version_tags WHERE name = ?", name):
            if str(version) in versions:
                versions[str(version)][key] = value
        aliases = run("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name)
        locks = run("SELECT name FROM registered_models WHERE name LIKE ?", f"mlcicd-lock--{name}--%")
        return Seen(
            {alias: str(version) for alias, version in aliases},
            versions,
            pairs("registered_model_tags", name),
            {lock: pairs("registered_model_tags", lock) for (lock,) in locks},
        )

    # --- what is done to it; each to be run in a child

    def promote(self, name: str, version: str = "3", uri: str = "") -> dict[str, Any]:
        return _said(
            lambda: (
                promote(
                    self.registry(uri), name, version, expected_champion="2", reason="better", **ALIASES
                ).champion.version
            )
        )

    def rollback(self, name: str, uri: str = "") -> dict[str, Any]:
        return _said(lambda: restore_previous(self.registry(uri), name, reason="worse", **ALIASES).champion.version)

    def recover(self, name: str, uri: str = "") -> dict[str, Any]:
        return _said(lambda: str(len(recover(self.registry(uri), name, **ALIASES))))

    def register(self, name: str, uri: str = "") -> dict[str, Any]:
        """Of the project that `prepare` has made."""
        from mlcicd.stages import register

        verdict = register(load_project(self.folder / "projects" / name, environ=dict(os.environ)))
        error = verdict.details.get("error", {})
        ok = verdict.status in (Status.PASSED, Status.SKIPPED)
        return {
            "ok": ok,
            "what": verdict.outputs.get("model-version", "") if ok else verdict.summary,
            "code": int(verdict.exit_code),
            "remedy": bool(error.get("remedy")),
        }

    def prepare(self, name: str, uri: str = "") -> None:
        """A project whose model was trained and evaluated, for `register`."""
        root = self.folder / "projects" / name
        root.mkdir(parents=True)
        for table in ("train.csv", "holdout.csv"):
            (root / table).write_text("a,y\n1,0\n")
        self._write_config(root, name, uri)
        self._write_verdicts(root)

    def _write_config(self, root: Path, name: str, uri: str) -> None:
        local = self.uri.startswith("sqlite")
        artifacts = f', artifacts: "{(self.folder / "artifacts").as_uri()}"' if local else ""
        config = CONFIG.format(name=name, uri=uri or self.uri, lease=LEASE, artifacts=artifacts)
        (root / "mlcicd.yaml").write_text(config)

    def _write_verdicts(self, root: Path) -> None:
        project = load_project(root, environ=dict(os.environ))
        data = [Subject(kind="data", name=k, digest=digest_tree(root / f"{k}.csv")) for k in ("train", "holdout")]
        about = [Subject(kind="git", name="none", digest=""), Subject(kind="config", name="c", digest=project.digest)]
        model = Subject(kind="model", name="candidate", digest=self.digest)
        champion = Subject(kind="model", name="champion", digest="", details={"version": "2"})
        at = now()
        for stage, subjects in (("validate-data", data), ("evaluate", [*data, model, champion])):
            verdict = Verdict(
                stage=stage,
                status=Status.PASSED,
                subjects=[*about, *subjects],
                outputs={"run-id": self.run_id},
                started=at,
                finished=at,
            )
            verdict.write(project.verdict_path(stage))

    # --- what must hold

    def safe(self, name: str, where: str, champions: tuple[str, ...]) -> Seen:
        """I1 and I2: what must hold at any instant."""
        seen = self.look(name)
        evidence = seen.versions.get(seen.champion, {}).get("mlcicd.evidence_digest")
        self.must(seen.champion in champions, where, f"I1: the champion is {seen.champion!r}")
        self.must(bool(evidence), where, "I1: the champion has no evidence")
        self.must(seen.previous in seen.versions, where, f"I2: previous is {seen.previous!r}")
        for version, tags in seen.versions.items():
            self.must("mlcicd.content" in tags, where, f"I1: version {version} has no lineage")
        return seen

    def settled(self, name: str, where: str, *, champion: str, previous: str, versions: int, challenger: str) -> None:
        """I3: what must hold when all is done."""
        seen = self.safe(name, where, (champion,))
        self.must(seen.previous == previous, where, f"I2: previous is {seen.previous!r}, not {previous!r}")
        self.must(len(seen.versions) == versions, where, f"I3: {len(seen.versions)} versions, not {versions}")
        contents = [tags["mlcicd.content"] for tags in seen.versions.values()]
        self.must(len(set(contents)) == len(contents), where, "I3: two versions of one content")
        self.must(seen.aliases.get("challenger") == challenger, where, "I3: the challenger is another")
        self.must(not seen.open_intents(), where, f"I3: open intents {seen.open_intents()}")
        self.must(len(seen.locks) == 1, where, f"I3: {len(seen.locks)} models of the lock are left")
        self.must(all("mlcicd.released" in tags for tags in seen.locks.values()), where, "I4: the lock is still held")

    def told(self, said: dict[str, Any], where: str) -> None:
        """I6: a failure is one of the service, and says what to do next."""
        if not said["ok"]:
            self.must(said["code"] == 5 and said["remedy"], where, f"I6: {said}")

    def must(self, holds: bool, where: str, what: str) -> None:
        if not holds:
            self.broken.append(f"{where}: {what}")


def _said(work: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"ok": True, "what": work(), "code": 0, "remedy": True}
    except MlcicdError as error:
        return {"ok": False, "what": str(error), "code": int(error.exit_code), "remedy": bool(error.remedy)}
