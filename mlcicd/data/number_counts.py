"""Numbers counted by cell (:mod:`mlcicd.data.histogram`), and their mean and deviation added up, in one reading."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlcicd.data.histogram import FINE_BITS, FIRST_KEY, Histogram, cell_keys, magnitude_keys
from mlcicd.data.number_batches import number_batches
from mlcicd.data.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The largest number whose square is one.
_SQUARABLE = 1e150
# Cells of the table: so many octaves of either sign, a few of them above what the first batch holds. The first place of
# each is for what is below.
_OCTAVES, _HEADROOM = 64, 16
_SPAN = _OCTAVES << FINE_BITS


@dataclass
class NumberCounts:
    """What is known of numbers so far.

    Attributes:
        values, nan, infinite: how many numbers there are, and how many of them are no finite ones.
        low, high: smallest and largest finite number; infinity and its negative without one.
        mean: of the finite numbers, those beyond 1e150 taken for 1e150.
    """

    values: int = 0
    nan: int = 0
    infinite: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    _squares: float = 0.0
    _first: int | None = None
    _table: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * _SPAN, dtype=np.int64))
    _elsewhere: dict[int, int] = field(default_factory=dict)

    @property
    def finite(self) -> int:
        return self.values - self.nan - self.infinite

    @property
    def deviation(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self._squares / self.finite) if self.finite else 0.0

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Counts some more (float64, shape (n,)), NaN and infinities among them."""
        if not len(numbers):
            return
        before, self.values = self.finite, self.values + len(numbers)
        low, high = float(numbers.min()), float(numbers.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            undefined = int(np.count_nonzero(np.isnan(numbers)))
            finite = numbers[np.isfinite(numbers)]
            self.nan += undefined
            self.infinite += len(numbers) - len(finite) - undefined
            if not len(finite):
                return
            numbers, low, high = finite, float(finite.min()), float(finite.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._add_moments(before, numbers, low, high)
        self._add_cells(numbers, low, high)

    def _add_moments(self, before: int, numbers: NDArray[np.float64], low: float, high: float) -> None:
        """Chan, Golub and LeVeque 1979: of distances from a mean near by, squares lose no digits."""
        if low < -_SQUARABLE or high > _SQUARABLE:
            numbers = np.clip(numbers, -_SQUARABLE, _SQUARABLE)
            low, high = float(numbers.min()), float(numbers.max())
        n, squares = len(numbers), 0.0
        mean = low
        if low < high:
            mean = float(numbers.mean())
            apart = numbers - mean
            # Not `dot`: its threads would wait for each other, busily.
            squares = float(np.square(apart, out=apart).sum())
        delta = mean - self.mean if before else mean
        self.mean += delta * (n / (before + n))
        if not before:
            self.mean = mean
        else:
            self._squares += delta * delta * (before * (n / (before + n)))
        self._squares += squares

    def _add_cells(self, numbers: NDArray[np.float64], low: float, high: float) -> None:
        top = int(magnitude_keys(np.array([max(-low, high)]))[0])
        if self._first is None:
            self._first = max(top - ((_OCTAVES - _HEADROOM) << FINE_BITS), FIRST_KEY)
        if not self._first <= top < self._first + _SPAN - 1:
            self._add_elsewhere(numbers)
            return
        places = magnitude_keys(numbers)
        places -= self._first - 1
        if int(places.min()) < 1:  # zeros, above all
            np.maximum(places, 0, out=places)
        table = self._table
        if low < 0:
            signs = numbers.view(np.int64) >> 63
            signs &= _SPAN
            places += signs
        below = int(table[0]), int(table[_SPAN])
        # In place: `bincount` would make a table for each batch.
        np.add.at(table, places, 1)
        if (int(table[0]), int(table[_SPAN])) != below:
            self._add_elsewhere(numbers[places & (_SPAN - 1) == 0])
            table[0], table[_SPAN] = below

    def _add_elsewhere(self, numbers: NDArray[np.float64]) -> None:
        zeros = int(np.count_nonzero(numbers == 0.0))
        keys = np.zeros(0, dtype=np.int64) if zeros == len(numbers) else cell_keys(numbers[numbers != 0.0])
        found = zip(*(side.tolist() for side in np.unique(keys, return_counts=True)), strict=True)
        for key, count in [(0, zeros), *found]:
            if count:
                self._elsewhere[key] = self._elsewhere.get(key, 0) + count

    def histogram(self) -> Histogram:
        """The finite numbers by cell."""
        cells = dict(self._elsewhere)
        filled = np.flatnonzero(self._table)
        keys = (filled & (_SPAN - 1)) + ((self._first or 0) - 1)
        keys = np.where(filled < _SPAN, keys, ~keys)
        for key, count in zip(keys.tolist(), self._table[filled].tolist(), strict=True):
            cells[key] = cells.get(key, 0) + count
        return Histogram(FINE_BITS, cells)


def count_numbers(source: Source, value: str) -> NumberCounts:
    """Counts the values of an expression (our SQL, a DOUBLE) that are not NULL.

    Raises:
        InputError: the data can not be read.
    """
    counts = NumberCounts()
    for numbers in number_batches(source, value):
        counts.add(numbers)
    return counts
