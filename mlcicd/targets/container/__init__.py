"""What an image of one version is built from, for those who take containers into their own hands.

A folder with the model, the server, a Dockerfile, and a compose file with the router in front. Writing it needs no
daemon.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.files import write_atomic
from mlcicd.targets.base import ModelVersion
from mlcicd.targets.kubernetes.names import dns_label
from mlcicd.targets.router import RouterSettings, standalone

ROUTER = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
_TEMPLATES = Path(__file__).parent / "templates"
_SERVING = Path(__file__).resolve().parents[2] / "serving"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,400}")
_PYTHON = re.compile(r"^python:\s*['\"]?(\d+\.\d+(?:\.\d+)?)['\"]?\s*$", re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#.*")
_CONSTRAINTS = re.compile(r"(-c|--constraint)[ =]\s*constraints\.txt")


@dataclass(frozen=True)
class Context:
    """What was written.

    Attributes:
        folder: the build context.
        image: name and tag that the compose file gives the image.
        base: the base image.
        pinned: whether the base is pinned by digest.
        locked: whether each requirement has a hash.
    """

    folder: Path
    image: str
    base: str
    pinned: bool
    locked: bool


def write_context(version: ModelVersion, folder: Path, *, base: str = "", requirements: Path | None = None) -> Context:
    """Writes the folder that an image of a version is built from.

    Args:
        version: its `path` holds the verified bytes.
        folder: must not be there, or be empty.
        base: image with Python; the slim one of the model's own Python when empty.
        requirements: lock file with hashes, instead of the model's own `requirements.txt`.

    Raises:
        ConfigError: the base is no image's name, or the folder holds something.
        InputError: not an MLflow model, its bytes are not those of its digest, or its requirements can not be used.
    """
    if not _TAG.fullmatch(version.version):
        raise ConfigError(f"not a version that an image may be tagged with: {version.version!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("it holds something already", where=str(folder), remedy="remove it, or name another folder")
    base = base or f"docker.io/library/python:{_python_of(version.path)}-slim"
    if not _IMAGE.fullmatch(base):
        raise ConfigError(f"not the name of an image: {base!r}")
    text, constraints = _requirements(version.path, requirements)
    locked = requirements is not None
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(version.path, folder / "model")
    digest = digest_tree(folder / "model")
    if version.digest not in ("", digest):
        shutil.rmtree(folder / "model")
        raise InputError(
            f"version {version.version} is not the model that was registered",
            where=str(version.path),
            why=f"Its digest is {digest}, the registered one {version.digest}.",
            remedy="fetch it from the registry again; do not build an image of it",
        )
    server = _copy_server(folder)
    shutil.copyfile(Path(__file__).parent / "start.py", folder / "start.py")
    identity = {"name": version.name, "version": version.version, "digest": digest}
    write_atomic(folder / "identity.json", json.dumps(identity, indent=1) + "\n")
    write_atomic(folder / "requirements.txt", text)
    if constraints:
        shutil.copyfile(version.path / "constraints.txt", folder / "constraints.txt")
    router = standalone(RouterSettings("0.0.0.0", 8080), version.version, "model", 8080)  # noqa: S104  (a container's)
    write_atomic(folder / "envoy.json", json.dumps(router, indent=1) + "\n")
    image = f"{dns_label(version.name)}:{version.version}"
    values = {
        "version": version.version,
        "digest": digest,
        "base": base,
        "image": image,
        "router": ROUTER,
        "server": server,
        "locked": locked,
        "constraints": constraints,
    }
    for template, name in (("Dockerfile", "Dockerfile"), ("dockerignore", ".dockerignore"), ("compose.yaml",) * 2):
        write_atomic(folder / name, _rendered(template, values))
    return Context(folder, image, base, "@sha256:" in base, locked)


def _rendered(template: str, values: dict[str, object]) -> str:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701  (no HTML: what is not checked is written with tojson)
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(values)


def _python_of(model: Path) -> str:
    """The version of Python that the model was saved with."""
    try:
        found = _PYTHON.search((model / "python_env.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        raise InputError(
            "the model does not say which Python it was saved with",
            where=str(model / "python_env.yaml"),
            remedy="name the base image with --base",
        )
    return found.group(1)


def _requirements(model: Path, lock: Path | None) -> tuple[str, bool]:
    """The text of the requirements, and whether they refer to the model's constraints."""
    path = lock or model / "requirements.txt"
    if not (model / "MLmodel").is_file():
        raise InputError("not an MLflow model: there is no MLmodel file", where=str(model))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the requirements can not be read", where=str(path), why=str(error)) from error
    logical = [line for line in (_COMMENT.sub("", line).strip() for line in _joined(text)) if line]
    constraints = any(_CONSTRAINTS.fullmatch(line) for line in logical)
    for line in logical:
        option = next((word for word in line.split() if word.startswith("-") and not word.startswith("--hash")), "")
        if option and not _CONSTRAINTS.fullmatch(line):
            # An index, or a path on the machine of whoever trained: neither is for a build to follow unasked.
            raise InputError(
                f"the requirements hold an option of pip: {option}",
                where=str(path),
                remedy="give a lock file without options as --requirements; set the index where the image is built",
            )
        if lock is not None and "--hash=" not in line:
            raise InputError(
                f"a requirement has no hash: {line[:80]}",
                where=str(path),
                remedy="write the lock with `uv pip compile --generate-hashes`",
            )
    return text, constraints


def _joined(text: str) -> Iterator[str]:
    """Lines as pip joins them: a comment does not go on in the next line, and ends what went on before it."""
    begun = ""
    for line in text.splitlines():
        comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not comment:
            begun += line.strip("\\")
            continue
        yield begun if comment else begun + line
        begun = ""
    yield begun


def _copy_server(folder: Path) -> str:
    """Copies the model server; the name of its file or folder."""
    source = _SERVING / "server"
    if source.is_dir():
        shutil.copytree(source, folder / "server", ignore=shutil.ignore_patterns("__pycache__"))
        return "server"
    shutil.copyfile(_SERVING / "server.py", folder / "server.py")
    return "server.py"
