"""Attributes by which an object of a reviewed class could be made to call something else than its class does.

A pickle sets any attribute of the objects that it makes. Most are numbers and texts; a few are asked for as a method
(scikit-learn's `stack_method_`), and one that is named like a method replaces it. A global or a partial may therefore
stand under a few keys only, which are parameters and never methods: scikit-learn's `_parameter_constraints` with a
callable or a type, the fitted copies of those, and joblib's, NumPy's and pandas's own.
"""

from __future__ import annotations

import re
from typing import Any

from mlcicd.supply_chain.pickle_values import CONTAINERS, NOT_TEXT, Listing, Made, Mapping, Name

PARTIAL = ("functools", "partial")
# Attributes whose text scikit-learn takes as the name of a method to call.
RESPONSE_KEYS = frozenset(
    ("stack_method", "stack_method_", "response_method", "_response_method", "chain_method", "chain_method_")
)
RESPONSES = frozenset(("auto", "predict", "predict_proba", "predict_log_proba", "decision_function"))
CALLABLE_KEYS = frozenset(
    (
        "_metric", "_score_func", "_scorer", "_type", "affinity", "analyzer", "callback", "categorical_features",
        "connectivity", "default_factory", "dtype", "dtype_", "_dtype", "factory", "feature_name_combiner",
        "feature_names_out", "fill_value", "fun", "func", "init", "inverse_func", "is_data_valid", "is_model_valid",
        "kernel", "loss", "max_features", "metric", "missing_values", "objective", "_objective", "eval_metric",
        "oob_score", "optimizer", "out_dtype", "output_dtype", "pooling_func", "preprocessor", "refit", "score_func",
        "scoring", "scorer_", "strategy", "strip_accents", "subclass", "tokenizer", "verbose_feature_names_out",
        "weights", "bit_generator_ctor",
    )
)  # fmt: skip
IMPORTANCE = re.compile(r"(?!_)[A-Za-z]\w*(?:\.(?!_)[A-Za-z]\w*)*")


def plain_importance(value: str) -> bool:
    """Whether an `importance_getter` is `auto` or a path of public attributes."""
    return IMPORTANCE.fullmatch(value) is not None


def is_callable(value: Any) -> bool:
    return isinstance(value, Name) or (isinstance(value, Made) and value.made_of == PARTIAL)


def entry_problem(key: Any, value: Any) -> str:
    """Why an entry of a dictionary, which may become the state of an object, is refused; empty when it is not."""
    if not isinstance(key, str):
        return ""
    if key in RESPONSE_KEYS:
        return "" if _responses(value) else f"{key} names something else than a method that predicts"
    if key == "importance_getter":
        plain = value is NOT_TEXT or (isinstance(value, str) and plain_importance(value))
        return "" if plain else "importance_getter is no plain attribute"
    if is_callable(value) and key not in CALLABLE_KEYS:
        return f"something that can be called stands under the key {key[:80]!r}, where it may replace a method"
    return ""


def _responses(value: Any) -> bool:
    # NOT_TEXT is None here: lists are kept. What is no text is no name of a method.
    if isinstance(value, Listing):
        return not value.cut and all(_responses(item) for item in value.items)
    if isinstance(value, tuple):
        return all(_responses(item) for item in value)
    return value is NOT_TEXT or (isinstance(value, str) and value in RESPONSES)


def state_problem(target: Any, state: Any) -> str:
    """Why the state that an object is given can not be followed; empty when it can."""
    if isinstance(target, Made) and target.made_of == PARTIAL:
        return partial_problem(state)
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if isinstance(part, Mapping) and part.odd:
            return "it sets an attribute whose name is computed while it loads"
        if isinstance(part, Made) and part.made_of in CONTAINERS:
            return "the state of an object is computed while it loads"
        # Pairs, of which `dict.update` makes attributes all the same.
        for item in part.items if isinstance(part, Listing) else part if isinstance(part, tuple) else ():
            problem = entry_problem(*item) if isinstance(item, tuple) and len(item) == 2 else ""
            if problem:
                return problem
    return ""


def partial_problem(arguments: Any) -> str:
    """A partial is a call of its first argument, which must be a plain name, and no partial again."""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else None
    if not isinstance(first, Name) or (first.module, first.name) == PARTIAL:
        return "a partial calls something that is not a plain name"
    return ""
