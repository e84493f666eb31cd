"""Data sets that are no files of the project: their snapshots, made where they are missing or out of date."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlcicd.config import FILE_NAME
from mlcicd.config.data_set import DataSet
from mlcicd.core.digests import digest_file, digest_json
from mlcicd.core.errors import ConfigError
from mlcicd.core.files import write_atomic
from mlcicd.evaluation.prediction_cache import secret
from mlcicd.stages.record import Record


def bring_snapshots(record: Record, wanted: Collection[str], *, always: bool = False) -> None:
    """Reads the tables and remote files among `wanted` (paths relative to the project) into their snapshots.

    Args:
        always: also where there is a snapshot of that origin. Without, all stages of a pipeline see the same bytes.

    Raises:
        ConfigError: the variable that `url_env` names is not set; the table stays where it is (`engine: database`).
        InputError: there is no such table or file, or it can not be read.
        ServiceError: the database or store can not be reached, or refuses.
    """
    for relative, origin in record.project.config.data.brought.items():
        if relative not in wanted:
            continue
        if record.project.config.data.engine == "database" and origin.table:
            raise _stays(record, relative, origin)
        target = record.project.root / relative
        note = target.with_name(f"{Path(relative).name}.json")
        key = secret(record.project.environ)
        told = _told(note, target, key)
        of = digest_json(origin.model_dump(mode="json"))
        if told.get("of") == of and not always:
            continue
        known = str(told.get("version", "")) if told.get("of") == of else ""
        record.progress.step(f"reading {origin.shown}")
        version = _bring(record, relative, origin, target, known)
        written = {"of": of, "origin": origin.shown, "version": version}
        if key is not None:
            written["seal"] = _seal(written, target, key)
        write_atomic(note, json.dumps(written))


def _stays(record: Record, relative: str, origin: DataSet) -> ConfigError:
    kind = Path(relative).stem
    return ConfigError(
        f"{record.stage} reads rows, and data.{kind} ({origin.shown}) stays in its database: `data.engine` is database",
        file=FILE_NAME,
        line=record.project.document.line(("data", "engine")),
        why="Nothing of it was copied here, so that there is nothing to train, judge or compare with.",
        remedy="keep `engine: database` in a profile for validate-data alone "
        "(profiles: {warehouse: {data: {engine: database}}}), and let the other stages read a snapshot",
    )


def _bring(record: Record, relative: str, origin: DataSet, target: Path, known: str) -> str:
    if origin.table:
        from mlcicd.data.database import snapshot_table

        snapshot_table(
            url_of(record, relative, origin),
            origin.table,
            target,
            namespace=origin.namespace,
            order_by=origin.order_by,
            root=record.project.root,
        )
        return ""
    from mlcicd.data.remote import fetch

    return fetch(origin.path, target, shown=origin.shown, known=known)


def url_of(record: Record, relative: str, origin: DataSet) -> str:
    """The URL of a table's database.

    Raises:
        ConfigError: the variable that `url_env` names is not set.
    """
    if not origin.url_env:
        return origin.url
    url = record.project.environ.get(origin.url_env, "")
    if not url:
        line = record.project.document.line(("data", Path(relative).stem, "url_env"))
        raise ConfigError(
            f"the variable {origin.url_env} is not set",
            file=FILE_NAME,
            line=line,
            why=f"It holds the URL of the database of {origin.shown}.",
            remedy="set it in the job's environment, from a secret",
        )
    return url


def _told(note: Path, target: Path, key: bytes | None) -> dict[str, Any]:
    """What a note says of the snapshot beside it; nothing when it is not ours, or about other bytes: a commit could
    bring both."""
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        ours = key is not None and hmac.compare_digest(str(told["seal"]), _seal(told, target, key))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told if ours else {}


def _seal(told: Mapping[str, str], target: Path, key: bytes) -> str:
    said = digest_json([target.name, told["of"], told["origin"], told["version"], digest_file(target)])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
