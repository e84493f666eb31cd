"""What changed between two versions of a data set, as lines for a terminal and as Markdown for a pull request.

It reads the document that the comparison leaves (`mlcicd.data-diff`), and knows nothing of how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcicd.report.markup import clean, code, prose

_SHOWN_COLUMNS = 20


def diff_lines(document: Mapping[str, Any], *, before: str, now: str) -> list[str]:
    """The differences as lines; the schema first, then the rows, then the columns that moved."""
    lines = [clean(f"{before} -> {now}")]
    lines += [f"  {clean(text)}" for text in _schema(document["schema"])]
    lines.append(f"  {clean(_rows(document['rows']))}")
    for name, count in _most_changed(document["rows"]):
        lines.append(f"  {clean(name)}: {count:,} rows changed")
        lines += [f"    {clean(_example(document['rows'], one))}" for one in document["rows"]["examples"][name]]
    moved = _moved(document)
    if moved:
        lines.append("  distributions beyond what chance explains (Jensen-Shannon distance):")
        lines += [f"    {clean(one['column'])}: {_distance(one)}" for one in moved]
    return lines


def diff_markdown(document: Mapping[str, Any], *, before: str, now: str) -> str:
    """The same as Markdown; every name and value in it is text, never markup."""
    parts = [f"### Data: {code(before)} → {code(now)}", ""]
    parts += [f"- {prose(text)}" for text in [*_schema(document["schema"]), _rows(document["rows"])]]
    changed = _most_changed(document["rows"])
    if changed:
        parts += ["", "| Column | Rows changed | For example |", "|---|---|---|"]
        for name, count in changed:
            examples = document["rows"]["examples"][name]
            first = code(_example(document["rows"], examples[0])) if examples else ""
            parts.append(f"| {code(name)} | {count:,} | {first} |")
    moved = _moved(document)
    if moved:
        parts += ["", "| Column | Jensen-Shannon distance | Missing |", "|---|---|---|"]
        for one in moved:
            missing = f"{_percent(one['missing_reference'])} → {_percent(one['missing_current'])}"
            parts.append(f"| {code(one['column'])} | {prose(_distance(one))} | {missing} |")
    return "\n".join(parts) + "\n"


def _schema(schema: Mapping[str, Any]) -> list[str]:
    found = []
    if schema["added"]:
        found.append("columns added: " + ", ".join(schema["added"]))
    if schema["removed"]:
        found.append("columns removed: " + ", ".join(schema["removed"]))
    found += [f"type of {name}: {was} became {is_now}" for name, was, is_now in schema["retyped"]]
    if schema["reordered"]:
        found.append("the columns stand in another order")
    return found or ["the same columns"]


def _rows(rows: Mapping[str, Any]) -> str:
    counted = f"rows: {rows['before']:,} -> {rows['now']:,}; {rows['added']:,} added, {rows['removed']:,} removed"
    if rows["key"]:
        return f"{counted}, {rows['changed']:,} changed, {rows['same']:,} the same (by {', '.join(rows['key'])})"
    return f"{counted}, {rows['same']:,} the same (whole rows; a changed one is removed and added)"


def _most_changed(rows: Mapping[str, Any]) -> list[tuple[str, int]]:
    return sorted(rows["columns"].items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_COLUMNS]


def _example(rows: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    key = ", ".join(f"{name} {value}" for name, value in zip(rows["key"], one["key"], strict=True))
    return f"{key}: {_text(one['before'])} -> {_text(one['now'])}"


def _text(value: str | None) -> str:
    return "NULL" if value is None else value


def _moved(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Columns whose distance is more than samples of these sizes reach when nothing has moved."""
    found = [
        one for one in document["drift"] if isinstance(one["js"], float) and one["js"] > one["noise"].get("js", 0.0) > 0
    ]
    return found[:_SHOWN_COLUMNS]


def _distance(one: Mapping[str, Any]) -> str:
    return f"{one['js']:.3f} (chance alone: up to {one['noise']['js']:.3f})"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.2g} %"
