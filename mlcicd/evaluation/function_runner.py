"""Calls a metric of the user's own on two models' answers and on resamples of them, in the user's own interpreter.

This file is run by its path and imports nothing of mlcicd: it needs numpy, which the user's environment has. It reads
arrays from an `.npz` (no pickles) and writes JSON::

    python function_runner.py --function module:function --data in.npz --out out.json --resamples 2000 --seconds 60

The function is called as `function(y, predictions)`, and with `sample_weight`, `group` and the columns that were asked
for by name. Each resample draws independent units (rows, or groups of rows) with replacement, the same for both models;
then, in the time that is left, blocks of units are left out in turn, which tells how skewed their contributions are.
"""

import argparse
import importlib
import inspect
import json
import math
import sys
import time
import traceback
from pathlib import Path

# Fewer draws than this say too little about a spread.
FEWEST = 50
BLOCKS = 100


def load(name):
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    function = importlib.import_module(module)
    for part in attribute.split("."):
        function = getattr(function, part)
    if not callable(function):
        raise TypeError(f"{name} is not a function")
    return function


def accepts(function, name):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == name or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


class Call:
    """The function on some rows of both models."""

    def __init__(self, function, arrays):
        self.function = function
        self.y = arrays["y"]
        self.models = [arrays[name] for name in ("candidate", "champion") if name in arrays]
        self.named = {name.removeprefix("column:"): arrays[name] for name in arrays if name.startswith("column:")}
        if "weight" in arrays:
            if not accepts(function, "sample_weight"):
                raise TypeError("the holdout has weights (data.weight), and the function takes no sample_weight")
            self.named["sample_weight"] = arrays["weight"]
        self.grouped = "unit" in arrays and accepts(function, "group")

    def __call__(self, which, rows, group):
        named = {name: values[rows] for name, values in self.named.items()}
        if self.grouped:
            named["group"] = group
        value = float(self.function(self.y[rows], self.models[which][rows], **named))
        if not math.isfinite(value):
            raise ValueError(f"it returned {value}")
        return value


def resampler(n, unit, seed):
    """A function that draws (row numbers, numbers of the units they belong to)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    if unit is None:

        def draw():
            return rng.integers(0, n, n), None

        return draw
    order = np.argsort(unit, kind="stable")
    sizes = np.bincount(unit)
    starts = np.cumsum(sizes) - sizes

    def draw_units():
        picked = rng.integers(0, sizes.size, sizes.size)
        size = sizes[picked]
        first = np.repeat(starts[picked] - (np.cumsum(size) - size), size)
        return order[first + np.arange(size.sum())], np.repeat(np.arange(picked.size), size)

    return draw_units


def left_out(n, unit, seed):
    """Row numbers without one block of units after the other, and the units they belong to."""
    import numpy as np

    unit = np.arange(n) if unit is None else unit
    units = int(unit.max()) + 1
    blocks = min(BLOCKS, units)
    block = np.random.default_rng([seed, 1]).permutation(units) * blocks // units
    for number in range(blocks if blocks > 2 else 0):
        rows = np.flatnonzero(block[unit] != number)
        yield rows, np.unique(unit[rows], return_inverse=True)[1]


def said(error):
    """What went wrong, with the line of the user's code."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"[:500]


def run(function, arrays, resamples, seconds, seed):
    import numpy as np

    call = Call(function, arrays)
    n, unit = len(call.y), arrays.get("unit")
    points, reasons = [], []
    for which in range(len(call.models)):
        try:
            points.append(call(which, np.arange(n), unit))
            reasons.append("")
        except Exception as error:
            points.append(None)
            reasons.append(said(error))
    result = {"points": points, "reasons": reasons, "draws": [], "jackknife": [], "failed": 0, "error": ""}
    if any(reasons):
        return result
    draw = resampler(n, unit, seed)
    started = time.monotonic()
    done = 0
    while done < resamples and (done < FEWEST or time.monotonic() - started < seconds):
        rows, group = draw()
        done += 1
        try:
            result["draws"].append([call(which, rows, group) for which in range(len(call.models))])
        except Exception as error:
            result["failed"] += 1
            result["error"] = said(error)
        if done < FEWEST and time.monotonic() - started > 10 * seconds:
            break
    for rows, group in left_out(n, unit, seed):
        if time.monotonic() - started >= seconds:
            # Some of the blocks tell nothing of the others.
            result["jackknife"] = []
            break
        try:
            result["jackknife"].append([call(which, rows, group) for which in range(len(call.models))])
        except Exception:
            # A class may be in one block only: then the percentiles stand as they are.
            result["jackknife"] = []
            break
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--function", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--resamples", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        import numpy as np

        with np.load(arguments.data, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        function = load(arguments.function)
        result = run(function, arrays, arguments.resamples, arguments.seconds, arguments.seed)
    except Exception as error:
        result = {"points": [], "reasons": [said(error)], "draws": [], "failed": 0, "error": ""}
    temporary = Path(arguments.out + ".part")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    temporary.replace(arguments.out)


if __name__ == "__main__":
    main()
