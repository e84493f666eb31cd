"""What stages ask of the supply chain before a model is loaded: its digest, then its scan, over the same bytes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mlcicd.config import Project
from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict
from mlcicd.stages.record import Record
from mlcicd.supply_chain.findings import Scan
from mlcicd.supply_chain.policy import Rules, read_policy
from mlcicd.supply_chain.scanner import scan_model

_SHOWN = 20


class ModelRefused(CommandFailed):
    """A model has something in it that nobody has reviewed; it was not loaded (exit 1)."""


def rules_of(project: Project) -> Rules:
    """The reviewed list with the project's own policy.

    Raises:
        ConfigError: something in the policy is wrong.
    """
    policy = project.config.supply_chain.policy
    return read_policy(project.root / policy, shown=policy)


def admitted(record: Record, path: Path, digest: str, what: str, *, made_here: bool = False) -> Path:
    """The place to load a model from: a copy of our own, of this very digest, whose scan has let it through.

    The copy is scanned and the copy is loaded, so that what is changed in between at the original does not matter.

    Args:
        path: the model's directory or file. Where nothing is, the model is a function of the project's own code, which
            is not scanned.
        digest: what its bytes must be.
        what: `candidate` or `champion`, for messages.
        made_here: this very command has just trained it, so that its code has run already: it is warned of only.

    Raises:
        ModelRefused: the scan refused it, and `supply_chain.scan` is `enforce`.
        InputError: its bytes are not those of the digest.
    """
    mode = record.project.config.supply_chain.scan
    if mode == "off" or not path.exists():
        return path
    sealed = _sealed(record, path, digest)
    seen = record.details.setdefault("scan", {})
    if seen.get(what, {}).get("digest") != digest:
        scan = scan_model(sealed, rules_of(record.project))
        seen[what] = {"digest": digest, **_told(scan)}
        enforce = mode == "enforce" and not (made_here or _just_made_here(record, digest))
        record.checks.append(_check(record, scan, what, enforce=enforce))
        if not scan.clean and enforce:
            raise _refusal(record, scan, what)
    return sealed


def _sealed(record: Record, path: Path, digest: str) -> Path:
    """The model where nobody else writes: in the cache of verified models, or copied beside it under its digest."""
    cache = record.project.model_cache
    if path.is_relative_to(cache):
        sealed = path
    else:
        home = cache.with_name("sealed") / digest.replace(":", "-")
        sealed = home / path.name
        if not sealed.exists():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=".seal-") as temporary:
                # Links are copied as links, and the digest refuses them.
                copy = Path(shutil.copy2(path, temporary)) if path.is_file() else Path(temporary, path.name)
                if path.is_dir():
                    shutil.copytree(path, copy, symlinks=True)
                if digest_tree(copy) != digest:
                    raise _changed(path)
                with contextlib.suppress(FileExistsError):
                    copy.rename(sealed)
    if digest_tree(sealed) != digest:
        raise _changed(sealed)
    return sealed


def _changed(path: Path) -> InputError:
    return InputError(
        "the model was changed while it was looked at",
        where=str(path),
        remedy="make sure that nothing else writes there, remove it if it is below .mlcicd/cache, and run this again",
    )


def _just_made_here(record: Record, digest: str) -> bool:
    """Whether this is the model that `train` has just made in this checkout: all of its code has run here already."""
    if record.stage == "register":
        return False
    try:
        trained = Verdict.read(record.project.verdict_path("train"))
    except InputError:
        return False
    made = trained.subject("model", "candidate")
    return trained.status is Status.PASSED and made is not None and made.digest == digest


def _check(record: Record, scan: Scan, what: str, *, enforce: bool) -> Check:
    required = "nothing that is not on the reviewed list"
    if scan.clean:
        return Check(name=f"scan: {what}", status=CheckStatus.PASSED, observed=scan.summary(), required=required)
    made_here = record.project.config.supply_chain.scan == "enforce" and not enforce
    return Check(
        name=f"scan: {what}",
        status=CheckStatus.FAILED,
        severity=Severity.FAIL if enforce else Severity.WARN,
        observed=f"{len(scan.findings)} findings",
        required=required,
        reason=scan.summary() + ("; `register` will refuse it" if made_here else ""),
        remedy=_remedy(record, scan),
        details=_told(scan),
    )


def _remedy(record: Record, scan: Scan) -> str:
    policy = record.project.config.supply_chain.policy
    allow = next((finding.allow for finding in scan.findings if finding.allow), "")
    if not allow:
        return "do not load it; find out where it comes from"
    return f"if it must be there, allow it in {policy}, in a reviewed commit: {allow}"


def _refusal(record: Record, scan: Scan, what: str) -> ModelRefused:
    return ModelRefused(
        f"the {what} was refused before it was loaded",
        why="Loading a model runs what it names; the scan found what nobody has reviewed.",
        log=[finding.line() for finding in scan.findings[:_SHOWN]],
        remedy=_remedy(record, scan),
    )


def _told(scan: Scan) -> dict[str, Any]:
    return {
        "files": scan.files,
        "bytes": scan.size,
        "formats": sorted(scan.formats),
        "globals": len(scan.names),
        "findings": [finding.line() for finding in scan.findings[:_SHOWN]],
    }
