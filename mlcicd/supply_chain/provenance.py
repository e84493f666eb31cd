"""Where a model comes from, as an in-toto Statement with a SLSA provenance predicate, its verdicts among its subjects.

Formats: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_bytes, digest_file, digest_tree
from mlcicd.core.errors import InputError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:mlcicd:train-evaluate-register:v1"
# The digest of a directory: SHA-256 of the JSON list of its paths and their SHA-256 (`core.digests.digest_tree`). As a
# subject it is a plain `sha256`, of that list: sigstore signs no statement with digests of other names.
TREE = "mlcicdTreeV1"
_VERDICT = "verdict/"
_MODEL = "model/"


@dataclass(frozen=True)
class Facts:
    """What is known of how a model came to be.

    `parameters` were chosen from outside (configuration, command); `materials` are name to digest of what went in.
    """

    model: str
    parameters: Mapping[str, Any]
    materials: Mapping[str, str]
    commit: str
    builder: str
    invocation: str
    started: str
    finished: str


def statement(model: Path, documents: Mapping[str, bytes], facts: Facts) -> bytes:
    """The statement about a model directory and the documents that speak for it (file name to bytes)."""
    subjects = [{"name": facts.model, "digest": {"sha256": _hex(digest_tree(model))}}]
    subjects += [
        {"name": f"{_MODEL}{path.relative_to(model).as_posix()}", "digest": {"sha256": _hex(digest_file(path))}}
        for path in sorted(model.rglob("*"))
        if path.is_file()
    ]
    subjects += [
        {"name": f"{_VERDICT}{name}", "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
        for name, content in sorted(documents.items())
    ]
    dependencies: list[dict[str, Any]] = [
        {"name": name, "digest": _digest_set(digest)} for name, digest in sorted(facts.materials.items()) if digest
    ]
    if facts.commit:
        dependencies.append({"name": "source", "digest": {"gitCommit": facts.commit}})
    document = {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(facts.parameters),
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": facts.builder},
                "metadata": {
                    "invocationId": facts.invocation,
                    "startedOn": facts.started,
                    "finishedOn": facts.finished,
                },
            },
        },
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def check_statement(
    payload: bytes, *, model: Path | None, tree: str, documents: Mapping[str, bytes], name: str = ""
) -> int:
    """Whether a verified statement is about these very bytes; gives the number of its subjects.

    Args:
        name: the registered model that it must be about; a signer may sign several. Any when empty.
        model: the model directory; None when only its digest is at hand.
        tree: the digest that the registry knows the model by; empty to take the directory's own.
        documents: name to bytes; each that the statement names must be here, and the other way round.

    Raises:
        InputError: it is about something else.
    """
    named = _subjects(payload)
    # Envelopes of earlier versions have the digest under its own name.
    whole = {name: digest for name, digest in named.items() if not name.startswith((_MODEL, _VERDICT))}
    trees = [digest.get("sha256") or digest.get(TREE) for digest in whole.values()]
    if name and set(whole) != {name}:
        raise _about_else(f"it is about the model {', '.join(sorted(whole)) or 'without a name'}, not {name}")
    found = tree or (digest_tree(model) if model is not None else "")
    if len(trees) != 1 or f"sha256:{trees[0]}" != found:
        raise _about_else("the model is not the one that was signed")
    if model is not None:
        files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
        _same("model file", _MODEL, named, {name: _hex(digest_file(path)) for name, path in files.items()})
    _same("verdict", _VERDICT, named, {name: _hex(digest_bytes(content)) for name, content in documents.items()})
    return len(named)


def _subjects(payload: bytes) -> dict[str, dict[str, str]]:
    try:
        document = json.loads(payload)
        if document["_type"] != STATEMENT or document["predicateType"] != PREDICATE:
            raise _about_else("it is a statement of another kind")
        return {str(item["name"]): dict(item["digest"]) for item in document["subject"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _about_else("it is not an in-toto statement") from None


def _same(what: str, prefix: str, named: Mapping[str, Mapping[str, str]], found: Mapping[str, str]) -> None:
    signed = {name.removeprefix(prefix): digest for name, digest in named.items() if name.startswith(prefix)}
    for name in sorted({*signed, *found}):
        if name not in found:
            raise _about_else(f"the {what} {name} is missing")
        if name not in signed:
            raise _about_else(f"the {what} {name} was never signed")
        if signed[name].get("sha256") != found[name]:
            raise _about_else(f"the {what} {name} was changed after it was signed")


def _digest_set(digest: str) -> dict[str, str]:
    return {TREE: _hex(digest)} if digest.startswith("sha256:") else {"mlcicd": digest}


def _hex(digest: str) -> str:
    return digest.rpartition(":")[2]


def _about_else(why: str) -> InputError:
    return InputError(
        f"the signature does not hold: {why}",
        remedy="get model and evidence again from the registry; if it stays so, somebody changed them: do not load it",
    )
