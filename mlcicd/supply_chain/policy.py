"""What a model may be made of, and who may sign it: the reviewed list that ships with mlcicd, and the project's own
`model-policy.yaml`, in git, in which every exception has an owner and a reason.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mlcicd.core.digests import digest_file
from mlcicd.core.errors import ConfigError
from mlcicd.core.git import Kept, kept
from mlcicd.core.yaml_lines import read_yaml
from mlcicd.supply_chain.pickles import Data

FORMATS = (
    "archive",
    "catboost",
    "compressed",
    "keras",
    "lightgbm",
    "numpy",
    "onnx",
    "parquet",
    "pickle",
    "safetensors",
    "skops",
    "text",
    "torch",
    "xgboost",
)
LOADERS = frozenset(
    f"mlflow.{name}"
    for name in (
        "sklearn", "lightgbm", "xgboost", "catboost", "onnx", "statsmodels", "pytorch", "tensorflow", "keras",
        "prophet", "pmdarima", "spacy", "pyfunc.model",
    )
)  # fmt: skip
_REVIEWED = Path(__file__).with_name("reviewed_globals.txt")
Format = Literal[
    "archive", "catboost", "compressed", "keras", "lightgbm", "numpy", "onnx", "parquet", "pickle", "safetensors",
    "skops", "text", "torch", "xgboost",
]  # fmt: skip
# Paths that have nothing in common: a glob for all of them is one for everything.
_ANY_PATHS = ("MLmodel", "model.pkl", "q7/0.bin", "code/u-v.py")
Owner = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Exempted(_Strict):
    """One exception, who answers for it, and why."""

    owner: Owner = Field(description="Who answers for it.")
    reason: Owner = Field(description="Why it may be there.")


class GlobalRule(Exempted):
    name: Annotated[str, StringConstraints(pattern=r"^[\w.]+:[\w.*]+$")] = Field(
        description="`module:name`, or `module:*` for all names of exactly that module."
    )


class LoaderRule(Exempted):
    module: Annotated[str, StringConstraints(pattern=r"^[\w.]+$")] = Field(description="An MLflow loader module.")


class FileRule(Exempted):
    path: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="Glob of the file's path in the model: code, or a format that can not be read."
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = Field(
        "", description="The only content that it may have; any when empty."
    )

    @model_validator(mode="after")
    def _names_something(self) -> FileRule:
        everything = not self.path.strip("*?.!/[]-") or all(fnmatch.fnmatchcase(p, self.path) for p in _ANY_PATHS)
        if everything and not self.sha256:
            raise ValueError("path matches every file, which would switch the scan off: name the file, or its sha256")
        return self


class Signer(_Strict):
    """Whose signature lets a version be deployed: the holder of a key, or a keyless identity."""

    name: Owner
    key: str = Field("", description="Public key: PEM text, or the path of a PEM file in the project.")
    identity: str = Field(
        "",
        description="Keyless: the subject of the certificate, whole; of a workflow on GitHub "
        "`https://github.com/OWNER/REPOSITORY/.github/workflows/FILE@REF`.",
    )
    issuer: str = Field(
        "",
        description="Keyless: who vouches for the identity; on GitHub `https://token.actions.githubusercontent.com`.",
    )

    repository: str = Field(
        "",
        description="Keyless: address of the repository whose workflow runs (`https://github.com/OWNER/REPOSITORY`). "
        "Needed where `identity` is a reusable workflow, whose name is the same in whatever repository it is called.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Signer:
        if self.repository and not self.identity:
            raise ValueError("repository goes with an identity")
        if bool(self.key) == bool(self.identity) or bool(self.identity) != bool(self.issuer):
            raise ValueError("a signer has a key, or an identity and its issuer")
        return self


class OwnSigstore(_Strict):
    """What keyless signatures are verified with."""

    trusted_root: Owner = Field(
        description="Path of a trusted root (JSON) in the project; without it, the one that the installed package "
        "sigstore has of the public Sigstore."
    )


class Policy(_Strict):
    """`model-policy.yaml`."""

    version: Literal[1] = 1
    formats: list[Format] = Field(default_factory=lambda: list(FORMATS), description="Formats a model may have.")  # type: ignore[arg-type]
    globals_: list[GlobalRule] = Field(default_factory=list, alias="globals")
    loaders: list[LoaderRule] = Field(default_factory=list)
    files: list[FileRule] = Field(default_factory=list)
    signers: list[Signer] = Field(default_factory=list)
    sigstore: OwnSigstore | None = None


@dataclass(frozen=True)
class Rules:
    """A policy ready to be asked."""

    policy: Policy = field(default_factory=Policy)
    digest: str = ""
    # What there is to say about the policy itself.
    note: str = ""
    # Whether the last commit has it as it stands.
    committed: bool = False

    def names(self, module: str, name: str) -> bool:
        """Whether a global may be named by a model."""
        if name in reviewed().get(module, ()):
            return True
        # A dotted name takes an attribute of what is named first: it is allowed by its whole name only.
        whole = "" if "." in name else f"{module}:*"
        return any(rule.name in (f"{module}:{name}", whole) for rule in self.policy.globals_)

    def loads(self, module: str) -> bool:
        return module in LOADERS or any(rule.module == module for rule in self.policy.loaders)

    def takes(self, kind: str) -> bool:
        return kind in self.policy.formats

    def excepts(self, path: str, content: Data) -> bool:
        """Whether a file of the model is let through unread: somebody answers for all that is in it."""
        return any(
            fnmatch.fnmatchcase(path, rule.path)
            and (not rule.sha256 or hashlib.sha256(content).hexdigest() == rule.sha256)
            for rule in self.policy.files
        )


def read_policy(path: Path, *, shown: str) -> Rules:
    """The project's policy; the reviewed list alone when there is no such file.

    In a git repository it must be committed as it stands: nobody has reviewed an exception that is in no commit. A file
    that no commit has may ask for more (`signers`, `formats`), never for less.

    Raises:
        ConfigError: something in it is wrong (the error names the line), or it is not what git has.
    """
    from mlcicd.config.load import validate

    state = kept(path)
    if _linked(path, shown):
        raise _not_reviewed("it is a symbolic link, or below one", shown)
    if state is Kept.CHANGED:
        raise _not_reviewed("it is not committed as it stands", shown)
    if not path.is_file():
        return Rules()
    document = read_yaml(path, file=shown, environ={}, interpolate=False)
    policy = validate(Policy, document.data, document)
    if state is Kept.UNTRACKED and (policy.globals_ or policy.loaders or policy.files):
        raise _not_reviewed("it allows something, and is in no commit", shown)
    note = f"{shown} is in no git repository, so nothing shows that it was reviewed"
    return Rules(
        policy, digest_file(path), note if state is Kept.NO_REPOSITORY else "", committed=state is Kept.COMMITTED
    )


def read_named(rules: Rules, root: Path, name: str, *, shown: str, what: str) -> bytes:
    """A file that the policy names (a signer's key, a trusted root): as reviewed as the policy itself is. Who could
    replace the key that a committed policy names could sign as the one it belongs to.

    Args:
        root: the project's folder.
        shown: the policy, for messages.
        what: `the key of the signer NAME`, for messages.

    Raises:
        ConfigError: it is not there; or the policy is committed, and this file is not, as it stands.
    """
    path = root / name
    if rules.committed and (_linked(path, name) or kept(path) is not Kept.COMMITTED):
        raise _not_reviewed(f"{what} is not committed as it stands", name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{what} is not there",
            where=shown,
            why=f"{name}: {error.strerror}",
            remedy=f"put it at {name}, or name another file in {shown}",
        ) from error


def _linked(path: Path, name: str) -> bool:
    """Whether the file, or a folder that its name goes through, is a link: git would be asked of another place."""
    # What leads to the project is the machine's own business; so is what leads to a place outside of it.
    depth = 1 if Path(name).is_absolute() else len(Path(name).parts)
    return any(place.is_symlink() for place in (path, *path.parents)[:depth])


def _not_reviewed(what: str, shown: str) -> ConfigError:
    return ConfigError(
        what,
        file=shown,
        why="The policy decides what may be loaded; who can write it unseen can let anything in.",
        remedy=f"commit {shown} in a reviewed change, or restore it",
    )


@cache
def reviewed() -> Mapping[str, frozenset[str]]:
    """The globals that a model may name: module to names."""
    found: dict[str, set[str]] = {}
    for line in _REVIEWED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            module, _, names = line.partition(": ")
            found.setdefault(module, set()).update(names.split())
    return {module: frozenset(names) for module, names in found.items()}
