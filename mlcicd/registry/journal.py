"""The journal of a model: what each move of the champion was meant to do, and how it ended.

An entry is written as a tag on the registered model before anything is moved, under the number of the lock's epoch, so
that one holder never writes over another's. How it ended is a tag of its own. The entries stay: they are the history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace

from mlcicd.core.digests import digest_json
from mlcicd.core.verdict import now
from mlcicd.registry.connection import TAG

_INTENT = f"{TAG}journal."
_OUTCOME = f"{TAG}outcome."
DONE = "done"
ABANDONED = "abandoned"
KEPT = 200
# Epochs go up by one. A number further than this from all below it was not reached by moves: it is nobody's epoch.
LARGEST_GAP = 1_000_000
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Entry:
    """One move of the champion alias.

    Args:
        epoch: number of the lock under which it was begun; later moves have higher ones.
        operation: `promote` or `rollback`.
        before: champion before it, empty for none.
        after: champion after it.
        previous_before: what the alias `previous` named before it, empty for none.
        previous_after: what it names after it.
        model_digest: digest of the model of `after`.
        evidence_digest: digest of the evaluation that let `after` through.
        reason: why; who: a person or account; run: address of the workflow run; at: when, ISO 8601, by the clock of
            the machine that did it.
        outcome: `done`, `abandoned`, or empty while it is open.
    """

    epoch: int
    operation: str
    before: str
    after: str
    previous_before: str
    previous_after: str
    model_digest: str = ""
    evidence_digest: str = ""
    reason: str = ""
    who: str = ""
    run: str = ""
    at: str = ""
    outcome: str = ""

    @property
    def key(self) -> str:
        """What makes two intents the same one: the operation, what it starts from, and the content it leads to."""
        content = self.model_digest or self.after
        return digest_json([self.operation, self.before, self.after, content, self.evidence_digest])

    def intent_tags(self) -> dict[str, str]:
        """The tags that write the intent down. Texts are cut, so that the entry always fits a tag."""
        document = {k: v for k, v in asdict(self).items() if k not in ("epoch", "outcome")}
        document |= {key: _plain(str(document[key])) for key in ("reason", "who", "run")}
        document |= {"key": self.key, "at": self.at or now().isoformat(timespec="seconds")}
        return {f"{_INTENT}{self.epoch:08d}": json.dumps(document, ensure_ascii=False, sort_keys=True)}

    def outcome_tags(self, outcome: str) -> dict[str, str]:
        return {f"{_OUTCOME}{self.epoch:08d}": outcome}


def entries(tags: Mapping[str, str]) -> list[Entry]:
    """The journal on a model's tags, oldest first. What is no entry of ours is passed over."""
    found = []
    for tag, text in tags.items():
        number = epoch_number(tag.removeprefix(_INTENT)) if tag.startswith(_INTENT) else None
        entry = _entry(number, text) if number is not None else None
        if entry is not None:
            outcome = tags.get(f"{_OUTCOME}{entry.epoch:08d}", "")
            found.append(replace(entry, outcome=outcome if outcome in (DONE, ABANDONED) else ""))
    known = reached([entry.epoch for entry in found])
    return sorted((e for e in found if e.epoch in known), key=lambda e: e.epoch)


def epoch_number(text: str) -> int | None:
    """The epoch that eight or more digits name; None for what we would not have written."""
    if not re.fullmatch(r"[0-9]{8,15}", text):
        return None
    return int(text) if f"{int(text):08d}" == text else None


def reached(numbers: Iterable[int], base: int = 0) -> set[int]:
    """The epochs that can have been reached: those with no gap of more than `LARGEST_GAP` below them.

    Args:
        base: an epoch that is known to have been reached.
    """
    known: set[int] = set()
    for number in sorted(numbers):
        if number - base > LARGEST_GAP:
            break
        base = max(base, number)
        known.add(number)
    return known


def outdated(tags: Mapping[str, str], keep: int = KEPT) -> list[str]:
    """The tags of ended entries beyond the newest ones: all read the journal, so it must not grow for ever."""
    old = [e for e in entries(tags)[:-keep] if e.outcome]
    return [key for e in old for key in (f"{_INTENT}{e.epoch:08d}", f"{_OUTCOME}{e.epoch:08d}") if key in tags]


def next_epoch(tags: Mapping[str, str]) -> int:
    """The lowest epoch that no entry has: where the lock's own models were deleted by somebody, it goes on here."""
    return max((e.epoch for e in entries(tags)), default=0) + 1


def _plain(text: str) -> str:
    """A text without control characters, which JSON would make six times as long, and which no reader needs."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_TEXT]


def _entry(epoch: int, text: str) -> Entry | None:
    known = {f.name for f in fields(Entry)} - {"epoch", "outcome"}
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict) or not {"operation", "before", "after"} <= document.keys():
        return None
    values = {key: str(document.get(key, "")) for key in known}
    return Entry(epoch=epoch, **values)
