"""Formats whose program is a JSON document: skops and Keras."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from mlcicd.supply_chain.findings import Scan, rule
from mlcicd.supply_chain.pickle_state import PARTIAL, entry_problem
from mlcicd.supply_chain.pickle_values import NOT_TEXT, UNKNOWN, Name
from mlcicd.supply_chain.policy import Rules

_KERAS_MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.losses",
    "keras.metrics",
    "keras.saving",
    "keras.src.models.functional",
    "keras.src.models.sequential",
)
# Layers that hold or call code; `keras.saving` has functions, and only its plain wrappers are data.
_KERAS_CODE = (
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "FlaxLayer",
    "JaxLayer",
    "TextVectorization",
    "HashedCrossing",
)
_KERAS_PLAIN = ("DTypePolicy", "__tensor__", "__numpy__", "__tuple__", "__ellipsis__", "__bytes__")


# The protocols of skops that were reviewed, and their loaders; older ones import what other keys name.
_SKOPS_PROTOCOLS = (1, 2)
_SKOPS_LOADERS = frozenset(
    (
        "BytearrayNode", "BytesNode", "CachedNode", "ConstructorFromReduceNode", "DTypeNode", "DefaultDictNode",
        "DictNode", "FunctionNode", "JsonNode", "ListNode", "LossNode", "MaskedArrayNode", "MethodNode", "NdArrayNode",
        "ObjectNode", "OperatorFuncNode", "PartialNode", "QuantileForestNode", "RandomGeneratorNode",
        "RandomStateNode", "SetNode", "SliceNode", "SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode",
        "_DictWithDeprecatedKeysNode",
    )
)  # fmt: skip
_SKOPS_CALLABLE = frozenset(("CachedNode", "FunctionNode", "MethodNode", "OperatorFuncNode", "PartialNode", "TypeNode"))


def check_skops(content: bytes, where: str, rules: Rules, scan: Scan) -> None:
    """Every type and function that a skops file would make, by our list and never by the one it brings."""
    document = _json(content, where, scan)
    if document is None:
        return
    protocol = document.get("protocol") if isinstance(document, dict) else None
    if type(protocol) is not int or protocol not in _SKOPS_PROTOCOLS:
        scan.refuse(where, f"it is of skops's protocol {protocol!r}, which was not reviewed")
    nodes = list(_nodes(document))
    called = {_identity(node) for node in nodes if node.get("__loader__") in _SKOPS_CALLABLE - {"CachedNode"}}
    for node in nodes:
        loader = node.get("__loader__")
        if ("__class__" in node or loader is not None) and not (isinstance(loader, str) and loader in _SKOPS_LOADERS):
            scan.refuse(where, f"its loader {str(loader)[:80]!r} is not known")
        if loader in ("DictNode", "DefaultDictNode", "_DictWithDeprecatedKeysNode"):
            _check_attributes(node, called, where, scan)
        elif loader == "ObjectNode":
            _check_pairs(node, called, where, scan)
        problem = _call_problem(node, called)
        if problem:
            scan.refuse(where, problem)
        for module, name in _skops_names(node):
            shown = f"{module}:{name}"
            scan.names.add(shown)
            if not rules.names(module, name):
                scan.refuse(
                    where, f"it names {shown}, which nobody has reviewed", name=shown, allow=rule("globals", name=shown)
                )


def _identity(node: dict[str, Any]) -> str:
    return str(node.get("__id__", ""))


def _check_attributes(node: dict[str, Any], called: set[str], where: str, scan: Scan) -> None:
    """The entries of a dictionary, which become attributes of an object: as of a pickle."""
    content = node.get("content")
    if not isinstance(content, dict):
        scan.refuse(where, "a dictionary has no content")
        return
    for key, child in content.items():
        problem = entry_problem(key, _value(child, called))
        if problem:
            scan.refuse(where, problem)


def _check_pairs(node: dict[str, Any], called: set[str], where: str, scan: Scan) -> None:
    """A state that is no dictionary, but pairs, of which `dict.update` makes attributes all the same."""
    content = node.get("content")
    children = content.get("content") if isinstance(content, dict) else None
    for child in children if isinstance(children, list) else []:
        pair = _value(child, called)
        problem = entry_problem(*pair) if isinstance(pair, tuple) and len(pair) == 2 else ""
        if problem:
            scan.refuse(where, problem)


def _call_problem(node: dict[str, Any], called: set[str]) -> str:
    """Why a partial, which calls something later, can not be followed; empty when it can."""
    loader, content = node.get("__loader__"), node.get("content")
    named = (node.get("__module__"), node.get("__class__"))
    if loader != "PartialNode":
        return "it makes a partial in a roundabout way" if named == PARTIAL and loader != "TypeNode" else ""
    function = content.get("func") if isinstance(content, dict) else None
    function = function if isinstance(function, dict) else {}
    kind = function.get("__loader__")
    plain = kind in ("FunctionNode", "TypeNode") or (kind == "CachedNode" and _identity(function) in called)
    return "" if plain else "a partial calls something that is not a plain name"


def _value(child: Any, called: set[str]) -> Any:
    """A node as the machine that reads pickles would keep it, as far as attributes are judged by it."""
    child = child if isinstance(child, dict) else {}
    loader, content = child.get("__loader__"), child.get("content")
    if loader in _SKOPS_CALLABLE:
        # A cached one is what stood first under its number.
        return Name("", "") if loader != "CachedNode" or _identity(child) in called else UNKNOWN
    if loader == "JsonNode" and isinstance(content, str):
        with contextlib.suppress(ValueError):
            plain = json.loads(content)
            return plain if isinstance(plain, str) else NOT_TEXT
    if loader in ("ListNode", "TupleNode") and isinstance(content, list):
        return tuple(_value(item, called) for item in content)
    return UNKNOWN


def _skops_names(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    content = node.get("content")
    if isinstance(content, dict) and ("module_path" in content or "function" in content):
        # Not only of the loader that is known to import them.
        yield str(content.get("module_path")), str(content.get("function"))
    if "__class__" in node or "__module__" in node:
        module, name = str(node.get("__module__")), str(node.get("__class__"))
        loader = node.get("__loader__")
        if loader == "MethodNode":
            # A bound method: of the object that it is taken from, whatever the node itself says of that.
            method = str(content.get("func", "")) if isinstance(content, dict) else ""
            held = content.get("obj") if isinstance(content, dict) else None
            held = held if isinstance(held, dict) else {}
            yield f"{held.get('__module__')}.{held.get('__class__')}", method
            yield f"{module}.{name}", method
            return
        yield module, name
    if "__reduce__" in node and isinstance(node["__reduce__"], dict) and "module" in node["__reduce__"]:
        yield str(node["__reduce__"]["module"]), str(node["__reduce__"].get("class", ""))


def check_keras(content: bytes, where: str, scan: Scan) -> None:
    """Refuses layers that hold code, and classes that are not Keras's own."""
    document = _json(content, where, scan)
    if document is None:
        return
    for node in _nodes(document):
        name = node.get("class_name")
        if name is None:
            continue
        module = node.get("module")
        if name in _KERAS_CODE or name == "function" or "code" in str(name).lower():
            scan.refuse(where, f"the layer {name} holds code, which runs when the model is loaded or predicts")
        elif module is not None and module not in _KERAS_MODULES and name not in _KERAS_PLAIN:
            scan.refuse(where, f"it names {module}.{name}, which is not Keras's own")
        elif node.get("registered_name") not in (None, name) and ">" in str(node.get("registered_name")):
            scan.refuse(where, f"it names {node.get('registered_name')}, a class of the project's own")


def _json(content: bytes, where: str, scan: Scan) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        scan.refuse(where, "it is no JSON that can be read")
        return None


def _nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a document, however deep."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
