"""`mlcicd init`: a starter configuration and the workflows, written into a repository."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from mlcicd.config import FILE_NAME
from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.files import write_atomic

# A reference to one of our actions in a workflow, with the release that the comment behind it names.
_OURS = re.compile(r"uses: mlcicd/mlcicd(?P<path>(?:/actions/[a-z-]+)?)@\S+(?: +#.*)?")
_USES = re.compile(r"^[\w.-]+/[\w.-]+@\S+$")
WORKFLOWS = ("mlcicd-ci.yml", "mlcicd-cd.yml", "mlcicd-canary.yml", "mlcicd-retrain.yml")

STARTER = """\
version: 1
model: {name: my-model, task: binary}         # or multiclass, multilabel, regression, quantile, ...
data:
  train: data/train.parquet
  holdout: data/holdout.parquet
  target: label
  # schema: schema.yaml                       # `mlcicd data infer data/train.parquet -o schema.yaml` writes it
train:
  run: python train.py                        # writes an MLflow model directory
  artifact: model
evaluate:
  gates:
    roc_auc: {min: 0.70, vs_champion: {margin: 0.005}}
deploy:
  mode: delivery                              # delivery: a person approves production; deployment: nobody has to
  environments:
    staging: {target: local}
    production: {target: local, strategy: canary}
canary:
  steps: [5, 25, 50]
"""


# What a training leaves behind and no commit should hold: with it in git, each run would look like changed code.
IGNORED = """\
# What mlcicd and MLflow write here.
/.mlcicd/
/mlflow.db*
/mlruns/
/mlartifacts/
/model/
/.model.*/
__pycache__/
/.venv/
"""


def templates() -> dict[str, str]:
    """The starter workflows by file name: from the installed package, or from the checkout it runs in.

    Raises:
        InputError: the installation is incomplete.
    """
    package = Path(str(files("mlcicd")))
    for folder in (package / "_templates", package.parent / "workflows-templates"):
        if folder.is_dir():
            return {name: (folder / name).read_text(encoding="utf-8") for name in WORKFLOWS}
    raise InputError("the starter workflows are not installed", remedy="install mlcicd again")


def scaffold(root: Path, *, force: bool, uses: str = "") -> list[str]:
    """Writes what is missing, all or nothing.

    Args:
        root: the project: `mlcicd.yaml` goes there, the workflows to `.github/workflows` of its repository.
        force: overwrite workflows that differ. A configuration or `.gitignore` that is there is never
            overwritten.
        uses: `OWNER/REPOSITORY@REF` for our actions, instead of the pinned release.

    Returns:
        the files written, relative to `root`'s repository.

    Raises:
        ConfigError: a file is there with other content and `force` is not given, or `uses` has another form.
    """
    if uses and not _USES.match(uses):
        raise ConfigError(f"--uses {uses!r} is not OWNER/REPOSITORY@REF")
    if not root.is_dir():
        raise InputError("there is no such folder", where=str(root))
    repository = _repository(root)
    subfolder = root.relative_to(repository).as_posix()
    wanted = {
        repository / ".github" / "workflows" / name: _adapted(text, uses, subfolder)
        for name, text in templates().items()
    }
    different = [path for path, text in wanted.items() if path.exists() and path.read_text("utf-8") != text]
    if different and not force:
        raise ConfigError(
            f"{len(different)} file{'s' * (len(different) != 1)} would be overwritten: "
            + ", ".join(path.relative_to(repository).as_posix() for path in different),
            remedy="commit your changes and run it again with --force, or move the files away",
        )
    for name, text in ((FILE_NAME, STARTER), (".gitignore", IGNORED)):
        if not (root / name).exists():
            wanted[root / name] = text
    written = []
    for path, text in wanted.items():
        if not path.exists() or path.read_text("utf-8") != text:
            write_atomic(path, text)
            written.append(path.relative_to(repository).as_posix())
    return written


def _adapted(text: str, uses: str, subfolder: str) -> str:
    if uses:
        repository, _, ref = uses.partition("@")
        text = _OURS.sub(lambda found: f"uses: {repository}{found['path']}@{ref}", text)
    text = text.replace("$default-branch", "main")
    if subfolder != ".":
        text = text.replace("MLCICD_DIRECTORY: .\n", f"MLCICD_DIRECTORY: {_scalar(subfolder)}\n")
    return text


def _scalar(text: str) -> str:
    """Text as a YAML scalar; quoted where it is more than letters, digits and the signs of a path."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", text) else json.dumps(text)


def _repository(root: Path) -> Path:
    """The root of the git repository that holds the folder; the folder itself outside of one."""
    return next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
