"""The model registry: any MLflow tracking server, used through its aliases."""

from mlcicd.registry.promotion import Promotion, promote, restore_previous
from mlcicd.registry.tracking import RegisteredVersion, Registry

__all__ = ["Promotion", "RegisteredVersion", "Registry", "promote", "restore_previous"]
