"""A matrix of parameters as cells: one training each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One combination of a matrix; of a project without a matrix, the only one, with an empty key."""

    key: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def seed(self, default: int) -> int:
        return int(self.values.get("seed", default))

    @property
    def params(self) -> dict[str, Any]:
        """The values without the seed."""
        return {name: value for name, value in self.values.items() if name != "seed"}

    @property
    def environment(self) -> dict[str, str]:
        """`MLCICD_PARAMS` (JSON), and `MLCICD_PARAM_<NAME>` for each value; nothing without a matrix."""
        if not self.key:
            return {}
        named = {f"MLCICD_PARAM_{name.upper()}": shown(value) for name, value in self.values.items()}
        return {"MLCICD_PARAMS": json.dumps(dict(self.values)), **named}


def cells(matrix: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """All combinations, the last name's values changing fastest; one empty cell when there is no matrix."""
    if not matrix:
        return [Cell()]
    combined = (dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values()))
    return [Cell(",".join(f"{name}={shown(value)}" for name, value in one.items()), one) for one in combined]


def github_matrix(matrix: Mapping[str, Sequence[Any]]) -> str:
    """JSON for `strategy.matrix` of a GitHub job: `{"cell": [key, ...]}`."""
    return json.dumps({"cell": [cell.key for cell in cells(matrix)]})


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
