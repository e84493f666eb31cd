"""What the independent units of a problem count for in a variance: rows, or groups of rows of unequal size."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlcicd.evaluation.clusters import effective, sizes, summed
from mlcicd.evaluation.problem import Problem

Floats = NDArray[np.float64]


class Units:
    """The units of one problem."""

    def __init__(self, problem: Problem) -> None:
        self._p = problem

    @property
    def number(self) -> int:
        """Independent units: rows, or what they are grouped by."""
        return self._p.n if self._p.cluster is None else self._p.clusters

    @cached_property
    def worth(self) -> int:
        """Units of equal size that the units are worth; as many as there are where they are rows."""
        if self._p.cluster is None or self.number < 2:
            return self.number
        return min(self.number, effective(self._shares))

    @property
    def counted(self) -> int:
        """`worth`, and 0 where rows are the units."""
        return 0 if self._p.cluster is None else self.worth

    def gathered(self, influence: Floats) -> Floats:
        """(units,) contributions, from those of (n,) rows."""
        if self._p.cluster is None or self.number < 2:
            return influence
        return summed(influence, self._p.cluster, self.number) * self._jackknife

    @cached_property
    def _shares(self) -> Floats:
        return sizes(np.asarray(self._p.cluster), self.number, self._p.weight)

    @cached_property
    def _jackknife(self) -> Floats:
        """(units,) by how much leaving a unit out moves a mean, beyond its own contribution.

        The sum of squares is then the delete-one-group jackknife's variance (CR3; Bell & McCaffrey, Survey Methodology
        28, 2002), which does not fall short with groups of unequal size.
        """
        factor: Floats = (self.number - 1) / self.number / np.maximum(1 - self._shares, 1 / self.number)
        return factor
