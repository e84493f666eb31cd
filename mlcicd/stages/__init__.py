"""The stages: one module each, all of one shape: a function from a project and options to a verdict."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Loaded on first use: a command that runs one stage does not pay for the others.
_STAGES = {
    "approve": "mlcicd.stages.approve",
    "validate_data": "mlcicd.stages.validate_data",
    "train": "mlcicd.stages.train",
    "evaluate": "mlcicd.stages.evaluate",
    "register": "mlcicd.stages.register",
    "deploy": "mlcicd.stages.deploy",
    "canary": "mlcicd.stages.canary",
    "predict": "mlcicd.stages.predict",
    "export": "mlcicd.stages.export",
    "promote": "mlcicd.stages.promote",
    "rollback": "mlcicd.stages.rollback",
    "monitor": "mlcicd.stages.monitor",
    "report": "mlcicd.stages.report",
    "run": "mlcicd.stages.pipeline",
}
__all__ = list(_STAGES)


def __getattr__(name: str) -> Any:
    if name in _STAGES:
        function = getattr(import_module(_STAGES[name]), name)
        globals()[name] = function
        return function
    raise AttributeError(f"module 'mlcicd.stages' has no attribute {name!r}")


class _Stages(ModuleType):
    """This package. A stage's module and its function share a name: here that name is the function, whichever of the
    two is imported first (Python would set it to the module)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _STAGES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Stages
