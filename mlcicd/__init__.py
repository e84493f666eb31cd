"""CI/CD for machine-learning models, as a library.

Every stage is a function from a project and options to a :class:`~mlcicd.core.verdict.Verdict`; nothing here
prints, exits or reads the environment on import::

    from mlcicd import load_project, evaluate

    project = load_project("path/to/project")
    verdict = evaluate(project)
    print(verdict.status, [check.reason for check in verdict.checks])
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Loaded on first use: `import mlcicd` must stay cheap, because the command line answers `--help` through it.
_EXPORTS = {
    "load_project": "mlcicd.config",
    "Project": "mlcicd.config",
    "Verdict": "mlcicd.core.verdict",
    "Check": "mlcicd.core.verdict",
    "Status": "mlcicd.core.verdict",
    "MlcicdError": "mlcicd.core.errors",
    "validate_data": "mlcicd.stages",
    "train": "mlcicd.stages",
    "evaluate": "mlcicd.stages",
    "register": "mlcicd.stages",
    "deploy": "mlcicd.stages",
    "canary": "mlcicd.stages",
    "rollback": "mlcicd.stages",
    "monitor": "mlcicd.stages",
    "run": "mlcicd.stages",
}
__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604  (the names resolve in __getattr__)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'mlcicd' has no attribute {name!r}")
