"""Places a model version can run: the protocol, one file a target, found by entry point."""

from mlcicd.targets.base import (
    Counters,
    ModelVersion,
    ProcessStatus,
    Target,
    TargetStatus,
    load_target,
    target_names,
)

__all__ = [
    "Counters",
    "ModelVersion",
    "ProcessStatus",
    "Target",
    "TargetStatus",
    "load_target",
    "target_names",
]
