"""The small project of the stages' tests, trained and evaluated."""

from stages.conftest import _evaluated_once, evaluated, root

__all__ = ["_evaluated_once", "evaluated", "root"]
