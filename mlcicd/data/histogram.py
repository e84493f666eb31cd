"""Histograms whose bins are the leading bits of the numbers, so that any two of them can be compared and
added.

A finite double is rounded to :data:`FINE_BITS` bits after its leading one; a cell's key is what is left of
its IEEE representation. Keys are monotone in the value, the same for every data set, and dropping a key's
last bit joins two neighbouring cells. A cell is a thousandth as wide as its values are large, whatever the
scale of the column, and whole numbers up to 2,048 have cells of their own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FINE_BITS = 10
_MANTISSA = 52
# Veltkamp's splitting: with c = x * (2^s + 1), c - (c - x) is x rounded to 53 - s significant bits.
_SPLIT = float(2 ** (_MANTISSA - FINE_BITS) + 1)
# Beyond these the splitting overflows or loses bits; such numbers share the outermost cells, or count as
# zero.
_LARGEST, _SMALLEST = 1e290, 1e-290
# No cell from this one on holds a number that counts as zero.
FIRST_KEY = struct.unpack("<q", struct.pack("<d", 2 * _SMALLEST))[0] >> (_MANTISSA - FINE_BITS)


def rounding_sql(value: str) -> str:
    """SQL that rounds a DOUBLE to the centre of its cell; NULL for NaN and infinities."""
    # greatest() and least() pass over NULL: without the first branch it would become a number.
    clamped = f"greatest(least({value}, {_LARGEST!r}), -{_LARGEST!r})"
    split = f"({clamped} * {_SPLIT!r})"
    return (
        f"CASE WHEN isfinite({value}) IS NOT TRUE THEN NULL WHEN abs({value}) < {_SMALLEST!r} THEN 0.0 "
        f"ELSE {split} - ({split} - {clamped}) END"
    )


def quick_rounding_sql(value: str) -> str:
    """The same by arithmetic alone, at a tenth of the cost: NaN for NaN, infinities, and numbers near the largest.

    Very small and very large numbers have cells of their own here: :func:`nearest_in_reach` takes them to theirs.
    """
    split = f"({value} * {_SPLIT!r})"
    return f"{split} - ({split} - {value})"


def magnitude_keys(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The key of the cell of each finite number's magnitude (int64, same shape), by :func:`rounding_sql`'s arithmetic.

    Keys below :data:`FIRST_KEY` are those of numbers that may count as zero.
    """
    import numpy as np

    magnitude = np.abs(numbers)
    np.minimum(magnitude, _LARGEST, out=magnitude)
    split = magnitude * _SPLIT
    np.subtract(split, magnitude, out=magnitude)
    np.subtract(split, magnitude, out=split)
    keys: NDArray[np.int64] = split.view(np.int64)
    keys >>= _MANTISSA - FINE_BITS
    return keys


def cell_keys(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The key of each finite number's cell (int64, same shape): that of the centre that :func:`rounding_sql` gives."""
    import numpy as np

    keys = np.where(np.abs(numbers) < _SMALLEST, 0, magnitude_keys(numbers))
    signed: NDArray[np.int64] = np.where((numbers < 0) & (keys > 0), ~keys, keys)
    return signed


def in_reach(cell: float) -> bool:
    """Whether both roundings have this centre; not so for zero, whose sign is lost."""
    return _SMALLEST <= abs(cell) <= _LARGEST


def nearest_in_reach(cell: float) -> float:
    """The centre that :func:`rounding_sql` gives for one that :func:`quick_rounding_sql` gave."""
    if abs(cell) < _SMALLEST:
        return 0.0
    if abs(cell) > _LARGEST:
        split = math.copysign(_LARGEST, cell) * _SPLIT
        return split - (split - math.copysign(_LARGEST, cell))
    return cell


@dataclass(frozen=True)
class Histogram:
    """Counts by cell.

    Attributes:
        bits: bits kept after the leading one, at most :data:`FINE_BITS`.
        cells: key to count; negative values have the complement of their magnitude's key.
    """

    bits: int = FINE_BITS
    cells: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of_rounded(cls, counts: Mapping[float, int]) -> Histogram:
        """From values rounded by :func:`rounding_sql` and their counts."""
        import numpy as np

        if not counts:
            return cls()
        values = np.fromiter(counts.keys(), dtype=np.float64, count=len(counts))
        sizes = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))
        magnitude = np.abs(values).view(np.int64) >> (_MANTISSA - FINE_BITS)
        keys = np.where(values < 0, ~magnitude, magnitude)
        unique, inverse = np.unique(keys, return_inverse=True)
        totals = np.zeros(len(unique), dtype=np.int64)
        np.add.at(totals, inverse, sizes)
        return cls(FINE_BITS, dict(zip(unique.tolist(), totals.tolist(), strict=True)))

    @property
    def total(self) -> int:
        return sum(self.cells.values())

    def coarser(self, bits: int) -> Histogram:
        """The same counts in wider cells."""
        if bits >= self.bits:
            return self
        cells: dict[int, int] = {}
        for key, count in self.cells.items():
            wide = key >> (self.bits - bits)
            cells[wide] = cells.get(wide, 0) + count
        return Histogram(bits, cells)

    def limited(self, cells: int) -> Histogram:
        """The finest version with at most this many cells (or one cell an octave, if that is still more)."""
        bits = self.bits
        keys = set(self.cells)
        while len(keys) > cells and bits > 0:
            bits -= 1
            keys = {key >> 1 for key in keys}
        return self.coarser(bits)

    def merge(self, other: Histogram) -> Histogram:
        """Both together, as fine as the coarser of them."""
        bits = min(self.bits, other.bits)
        cells = dict(self.coarser(bits).cells)
        for key, count in other.coarser(bits).cells.items():
            cells[key] = cells.get(key, 0) + count
        return Histogram(bits, cells)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Keys in ascending order (int64, shape (cells,)) and their counts (float64, same shape)."""
        import numpy as np

        keys = np.fromiter(self.cells.keys(), dtype=np.int64, count=len(self.cells))
        counts = np.fromiter(self.cells.values(), dtype=np.float64, count=len(self.cells))
        order = np.argsort(keys)
        return keys[order], counts[order]

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the values lie, to the width of a cell; None when empty."""
        import numpy as np

        if not self.cells:
            return None
        keys, counts = self.arrays()
        index = int(np.searchsorted(np.cumsum(counts), share * counts.sum(), side="left"))
        return float(centres(keys, self.bits)[min(index, len(keys) - 1)])

    def to_json(self) -> dict[str, Any]:
        """Keys as differences, which are short."""
        keys = sorted(self.cells)
        steps = [key - before for key, before in zip(keys, [0, *keys], strict=False)]
        return {"bits": self.bits, "steps": steps, "counts": [self.cells[key] for key in keys]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Histogram:
        cells, key = {}, 0
        for step, count in zip(value["steps"], value["counts"], strict=True):
            key += int(step)
            cells[key] = int(count)
        return cls(int(value["bits"]), cells)


def centres(keys: NDArray[np.int64], bits: int) -> NDArray[np.float64]:
    """The value in the middle of each cell (float64, same shape as `keys`)."""
    import numpy as np

    magnitude = np.where(keys < 0, ~keys, keys)
    half = (((1 << (FINE_BITS - bits)) - 1) << (_MANTISSA - FINE_BITS)) >> 1
    values = ((magnitude << (_MANTISSA - bits)) + half).astype(np.int64).view(np.float64)
    signed: NDArray[np.float64] = np.where(keys < 0, -values, values)
    return signed


def aligned(a: Histogram, b: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The centres of the cells that either has, and both counts in them (float64, shape (cells,))."""
    import numpy as np

    bits = min(a.bits, b.bits)
    a_keys, a_counts = a.coarser(bits).arrays()
    b_keys, b_counts = b.coarser(bits).arrays()
    keys = np.union1d(a_keys, b_keys)
    left, right = np.zeros(len(keys)), np.zeros(len(keys))
    left[np.searchsorted(keys, a_keys)] = a_counts
    right[np.searchsorted(keys, b_keys)] = b_counts
    return centres(keys, bits), left, right
