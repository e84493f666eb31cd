"""The model registry: any MLflow tracking server, used through its aliases."""

from mlcicd.registry.promotion import Origin, Overtaken, Promotion, promote, restore_previous
from mlcicd.registry.recovery import recover
from mlcicd.registry.tracking import RegisteredVersion, Registry

__all__ = [
    "Origin",
    "Overtaken",
    "Promotion",
    "RegisteredVersion",
    "Registry",
    "promote",
    "recover",
    "restore_previous",
]
