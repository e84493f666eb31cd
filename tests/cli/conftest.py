"""The small project of the stages' tests serves here, too."""

from pathlib import Path

from stages.conftest import _evaluated_once, evaluated

ROOT_OF_PACKAGE = Path(__file__).resolve().parents[2]

__all__ = ["ROOT_OF_PACKAGE", "_evaluated_once", "evaluated"]
