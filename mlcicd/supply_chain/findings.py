"""What a scan has found."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlcicd.core.errors import redact

_SHOWN = 200


@dataclass(frozen=True)
class Finding:
    """One thing that a model may not have.

    `where` is the file, with `!` before a member of an archive; `name` the global, when it is about one; `allow` the
    lines of `model-policy.yaml` that would allow it, empty when nothing does.
    """

    where: str
    what: str
    name: str = ""
    allow: str = ""

    def line(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class Scan:
    """What was looked at, and what was refused. A model without findings may be loaded."""

    files: int = 0
    size: int = 0
    names: set[str] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    # Files that the policy lets through unread.
    unread: list[str] = field(default_factory=list)
    # What there is to say about the policy that it was judged by.
    note: str = ""

    @property
    def clean(self) -> bool:
        return not self.findings

    def refuse(self, where: str, what: str, *, name: str = "", allow: str = "") -> None:
        """Adds a finding, once. What comes from the model is shortened and stays on its line."""
        found = Finding(_shown(where), _shown(what), _shown(name), allow)
        if found not in self.findings and len(self.findings) < 1000:
            self.findings.append(found)

    def summary(self) -> str:
        if self.clean:
            note = f"; {self.note}" if self.note else ""
            if self.unread:
                note = f"; {len(self.unread)} let through unread by the policy: {_shown(', '.join(self.unread))}{note}"
            return f"{self.files} files, {len(self.names)} globals, all of them reviewed{note}"
        more = f" and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        return f"{self.findings[0].line()}{more}"


def _shown(text: str) -> str:
    line = redact("".join(c if c.isprintable() else "\ufffd" for c in text))
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def rule(section: str, **entries: str) -> str:
    """The lines of a policy that would allow something."""
    import json

    fields = ", ".join(f"{key}: {json.dumps(value)}" for key, value in entries.items())
    return f"{section}: [{{{fields}, owner: WHO, reason: WHY}}]"
