"""Moves the window on by a month: the holdout joins the training months, the current month becomes the holdout.

`mlcicd run --refresh` runs it (data.refresh in mlcicd.yaml) when the data has drifted. Comments in params.yaml stay.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

LAST_MONTH = 12


def moved(text: str) -> str:
    """params.yaml with the three lines of the window changed."""
    window = yaml.safe_load(text)["prepare"]
    months, holdout, current = window["train_months"], window["holdout_month"], window["current_month"]
    if current >= LAST_MONTH:
        raise SystemExit("next_month.py: params.yaml: the year has no more months")
    for name, old, new in (
        ("train_months", str(months), str([*months, holdout])),
        ("holdout_month", str(holdout), str(current)),
        ("current_month", str(current), str(current + 1)),
    ):
        text, changed = re.subn(rf"(?m)^(\s*{name}:\s*){re.escape(old)}(?=\s|$)", rf"\g<1>{new}", text)
        if changed != 1:
            raise SystemExit(f"next_month.py: params.yaml: expected one line `{name}: {old}`")
    return text


def main() -> None:
    path = Path("params.yaml")
    path.write_text(moved(path.read_text(encoding="utf-8")), encoding="utf-8")
    print("params.yaml: the window has moved on by a month")


if __name__ == "__main__":
    main()
