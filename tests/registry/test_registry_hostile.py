"""What stands in the registry's tags, which others can write, stays text in `history`, `status` and git tags."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).parents[1] / room) for room in ("ci", "report")]

from hostile_text import hostile as hostile_text
from hostile_values import hostile as hostile_value

from mlcicd.commands_registry import _tell
from mlcicd.registry import Origin, Registry, promote
from mlcicd.registry.journal import Entry, entries
from mlcicd.registry.numbering import Numbering, next_semver, semver_of
from mlcicd.registry.tracking import RegisteredVersion, checked_digest
from mlcicd.stages.history import _move, _version, history_lines, state_lines

from .conftest import NAME

VALUES = 20_000
PARTS = ("operation", "before", "after", "previous_before", "previous_after", "model_digest", "evidence_digest")
TEXTS = ("reason", "who", "run", "at")
# Line ends of any reader, terminal sequences, what turns text around, and what no encoder takes.
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200b\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def values(seed: int) -> Any:
    draw = random.Random(seed)
    while True:
        yield hostile_text(draw) if draw.random() < 0.5 else hostile_value(draw)


def inert(output: str, lines: int) -> None:
    assert not UNSAFE.search(output), UNSAFE.search(output)
    told = output.split("\n")
    assert len(told) == lines + 1 and told[-1] == ""
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in told)


@pytest.mark.parametrize("host", ["plain", "github"])
def test_history_and_status_say_hostile_tags_as_text(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tags as another program may have written them: ours do not go through our own writer here."""
    if host == "github":
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    value = values(11)
    tags, count = {}, 0
    for epoch in range(1, VALUES // len(PARTS + TEXTS) + 2):
        document = {key: next(value) for key in PARTS + TEXTS}
        count += len(document)
        tags[f"mlcicd.journal.{epoch:08d}"] = json.dumps(document)
        tags[f"mlcicd.outcome.{epoch:08d}"] = document["who"]
    moves = [_move(entry) for entry in entries(tags)]
    assert count >= VALUES
    assert len(moves) * len(PARTS + TEXTS) == count
    lines = history_lines(moves)
    assert len(lines) <= 4 * len(moves)
    _tell(moves, lines)
    out = capsys.readouterr().out
    if host == "github":
        inert(out, len(lines))
    else:
        assert not UNSAFE.search(out)
        assert not any(line.lstrip().startswith("::") for line in out.split("\n"))
    _tell(moves, None)
    said = capsys.readouterr().out
    assert json.loads(said) == moves
    assert "##[" not in said
    assert not UNSAFE.search(said)


def test_status_says_hostile_tags_as_text() -> None:
    value = values(12)
    known = ("semver", "model_digest", "evaluation", "git_commit", "registered_by", "workflow_run")
    for _ in range(VALUES // (len(known) + 1) + 1):
        told = {**_version(next(value), {f"mlcicd.{key}": next(value) for key in known}), "since": next(value)}
        (line,) = state_lines({"aliases": {"champion": told}, "unfinished": 0, "environments": {}})
        assert "\n" not in line
        assert not UNSAFE.search(line)
        assert line.startswith("champion     version ")


def test_what_is_hostile_is_written_as_one_entry_and_read_again(registry: Registry) -> None:
    """Through a real registry: a promotion for a reason, by somebody, from somewhere."""
    value = values(13)
    # Each number several pieces at once: what a tag holds is cut at 500 characters.
    for turn in range(4):
        reason, who, run = ("".join(next(value) for _ in range(40)) for _ in range(3))
        promote(
            registry,
            NAME,
            str(turn % 2 + 1),
            champion_alias="champion",
            previous_alias="previous",
            expected_champion=None,
            reason=reason,
            origin=Origin(who, run),
        )
    model = registry.model(NAME)
    assert model is not None
    journal = entries(model.tags)
    assert [entry.after for entry in journal] == ["1", "2", "1", "2"]
    assert all(text.isprintable() and len(text) <= 500 for e in journal for text in (e.reason, e.who, e.run))


def test_hostile_intents_are_one_tag_each() -> None:
    value = values(14)
    for epoch in range(1, VALUES // 3 + 2):
        reason, who, run = next(value), next(value), next(value)
        entry = Entry(epoch, "promote", "1", "2", "", "1", reason=reason, who=who, run=run, at="2026-01-01T00:00:00")
        ((name, text),) = entry.intent_tags().items()
        text.encode()
        (again,) = entries({name: text})
        assert (again.epoch, again.after, again.outcome) == (epoch, "2", "")
        assert all(part.isprintable() for part in (again.reason, again.who, again.run))


def test_hostile_numbers_and_digests_never_reach_git_or_a_path() -> None:
    value = values(15)
    for _ in range(VALUES // 2):
        text = next(value)
        version = RegisteredVersion(NAME, "1", "", "", {"mlcicd.semver": text, "mlcicd.model_digest": next(value)})
        assert re.fullmatch(r"(v\d+\.\d+\.\d+)?", semver_of(version), re.ASCII)
        assert checked_digest(text) == "" or re.fullmatch(r"sha256:[0-9a-f]{64}", text)
        assert version.digest == ""
        assert re.fullmatch(r"v\d+\.\d+\.\d+", next_semver([version], Numbering()))
