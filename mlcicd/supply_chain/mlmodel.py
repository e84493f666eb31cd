"""The file `MLmodel` and what stands beside it: what MLflow would import, run and open because of them."""

from __future__ import annotations

import re
from typing import Any

from mlcicd.core.errors import MlcicdError
from mlcicd.core.yaml_lines import parse_yaml
from mlcicd.supply_chain.containers import Hostile, safe_name
from mlcicd.supply_chain.findings import Scan, rule
from mlcicd.supply_chain.policy import Rules

# Values of these keys are for people, or a path on the machine that saved the model; MLflow opens none of them.
_NOT_OPENED = frozenset(("uri", "model_code_path", "python_version", "model_class", "loader_module", "predict_fn"))
# What MLflow writes into conda.yaml and python_env.yaml.
_ENVIRONMENT_KEYS = frozenset(("name", "channels", "dependencies", "python", "build_dependencies"))
_CHANNELS = ("conda-forge", "defaults", "nodefaults")
_METHOD = re.compile(r"[a-z][a-z0-9_]*")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?\s*"
    r"((===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*(;.*)?"
)
_OPTION_OF_MLFLOW = ("-r requirements.txt", "-c constraints.txt")
_HASH = re.compile(r"\s*(\\$|--hash=sha256:[0-9a-f]{64}(\s*\\)?$)")


def check_mlmodel(text: str, where: str, rules: Rules, scan: Scan) -> set[str]:
    """Looks at an `MLmodel`; gives the files that it hands to an unpickler, whatever their names."""
    try:
        document = parse_yaml(text, file=where).data
    except MlcicdError as error:
        scan.refuse(where, f"it can not be read: {error.what}")
        return set()
    if _merges(document):
        # MLflow's reader would take the keys from below it.
        scan.refuse(where, "it has a merge key (<<), which readers of YAML do not agree on")
    flavors = document.get("flavors")
    if not isinstance(flavors, dict):
        scan.refuse(where, "it has no flavors")
        return set()
    pickled: set[str] = set()
    for flavor in flavors.values():
        if not isinstance(flavor, dict):
            scan.refuse(where, "a flavor is no mapping")
            continue
        _check_flavor(flavor, where, rules, scan)
        for key in ("pickled_model", "python_model", "data", "model_path"):
            if isinstance(flavor.get(key), str):
                pickled.add(flavor[key])
    _check_paths(flavors, where, scan)
    return pickled


def _merges(value: Any) -> bool:
    if isinstance(value, dict):
        return "<<" in value or any(_merges(item) for item in value.values())
    return isinstance(value, list) and any(_merges(item) for item in value)


def _check_flavor(flavor: dict[str, Any], where: str, rules: Rules, scan: Scan) -> None:
    loader = flavor.get("loader_module")
    # Models from code are run by a loader of MLflow's own; the code is a file, and is refused as one.
    if loader is not None and loader != "mlflow.pyfunc.loaders.code_model" and not rules.loads(str(loader)):
        scan.refuse(
            where,
            f"its loader_module is {loader}, whose code runs when the model is loaded",
            name=str(loader),
            allow=rule("loaders", module=str(loader)),
        )
    made = flavor.get("model_class")
    if made is not None:
        module, _, name = str(made).rpartition(".")
        if not rules.names(module, name):
            scan.refuse(
                where,
                f"its model_class is {made}, which nobody has reviewed",
                name=f"{module}:{name}",
                allow=rule("globals", name=f"{module}:{name}"),
            )
    trusted = flavor.get("skops_trusted_types")
    for item in trusted if isinstance(trusted, list) else [trusted] if trusted is not None else []:
        # MLflow hands them to skops, which then makes whatever they name.
        module, _, name = str(item).rpartition(".")
        if not rules.names(module, name):
            scan.refuse(
                where,
                f"it trusts {item}, which nobody has reviewed",
                name=f"{module}:{name}",
                allow=rule("globals", name=f"{module}:{name}"),
            )
    method = flavor.get("predict_fn")
    if method is not None and not _METHOD.fullmatch(str(method)):
        scan.refuse(where, f"its predict_fn is {method!r}")


def _check_paths(value: Any, where: str, scan: Scan, key: str = "") -> None:
    """Refuses paths that lead out of the model's folder."""
    if isinstance(value, dict):
        for inner, item in value.items():
            _check_paths(item, where, scan, str(inner))
    elif isinstance(value, list):
        for item in value:
            _check_paths(item, where, scan, key)
    elif isinstance(value, str) and key not in _NOT_OPENED:
        try:
            safe_name(value.split("\n", 1)[0])
        except Hostile:
            scan.refuse(where, f"{key} is {value!r}, which is outside of the model's folder")


def check_requirements(text: str, where: str, scan: Scan) -> None:
    """Refuses lines by which an installer would run or fetch something else than a package of its index."""
    for line in text.splitlines():
        bare = line.partition(" #")[0].strip()
        if not bare or bare.startswith("#") or bare in _OPTION_OF_MLFLOW or _HASH.fullmatch(line):
            continue
        bare = re.sub(r"(\s*--hash=sha256:[0-9a-f]{64})*\s*\\?$", "", bare)
        if not _REQUIREMENT.fullmatch(bare):
            scan.refuse(where, f"the requirement {bare!r} is more than a package and its version")


def check_environment(text: str, where: str, scan: Scan) -> None:
    """The same of `conda.yaml` and `python_env.yaml`."""
    try:
        document = parse_yaml(text, file=where).data
    except MlcicdError as error:
        scan.refuse(where, f"it can not be read: {error.what}")
        return
    if _merges(document):
        scan.refuse(where, "it has a merge key (<<), which readers of YAML do not agree on")
    for key in set(document) - _ENVIRONMENT_KEYS:
        scan.refuse(where, f"it has the key {str(key)[:80]!r}, which no environment of a model needs")
    for channel in _listed(document, "channels", where, scan):
        if channel not in _CHANNELS:
            scan.refuse(where, f"it takes packages from the channel {str(channel)[:80]!r}")
    lines: list[str] = []
    for key in ("dependencies", "build_dependencies"):
        for item in _listed(document, key, where, scan):
            if isinstance(item, dict):
                for manager in set(item) - {"pip"}:
                    scan.refuse(where, f"it installs with {str(manager)[:80]!r}")
                lines += [str(line) for line in _listed(item, "pip", where, scan)]
            else:
                # Conda's versions have one equals sign.
                lines.append(re.sub(r"(?<![=<>!~])=(?!=)", "==", str(item), count=1))
    check_requirements("\n".join(line.replace("\n", " ") for line in lines), where, scan)


def _listed(document: dict[str, Any], key: str, where: str, scan: Scan) -> list[Any]:
    """What stands under a key as a list; anything else is refused, since readers make different things of it."""
    value = document.get(key)
    if value is None or isinstance(value, list):
        return value or []
    scan.refuse(where, f"{key} is no list")
    return []


def check_name(path: str, scan: Scan) -> None:
    """Refuses file names that no model has: control characters and what would mislead a reader."""
    if not path.isprintable():
        scan.refuse(path, "its name has characters that can not be shown")
