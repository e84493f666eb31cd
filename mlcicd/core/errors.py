"""Errors a user sees, and the one table of exit codes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from urllib.parse import urlsplit, urlunsplit


class ExitCode(IntEnum):
    """What the process exit status means; the same for the command line, the actions and every CI."""

    PASSED = 0
    GATE_FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INPUT = 4
    SERVICE = 5
    DEFECT = 70


class MlcicdError(Exception):
    """An error with a cause a user can act on.

    Args:
        what: one line: what happened.
        where: `file:line`, a path, or a URL with its status; empty when there is no place.
        why: why it matters, or the detail behind `what`.
        remedy: what to do next.
        log: the last lines of a child process, if one failed.
    """

    exit_code: ExitCode = ExitCode.DEFECT

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "", log: Sequence[str] = ()) -> None:
        self.what = redact(what)
        self.where = redact(where)
        self.why = redact(why)
        self.remedy = redact(remedy)
        self.log = tuple(redact(line) for line in log)
        super().__init__(self.one_line())

    def one_line(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what

    def detail(self) -> str:
        """The lines after the first: why it matters and what to do, or nothing."""
        lines = []
        if self.why:
            lines.append(self.why)
        lines += [f"    {line}" for line in self.log]
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)


class ConfigError(MlcicdError):
    """The configuration or the command line is wrong (exit 2)."""

    exit_code = ExitCode.USAGE

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        remedy: str = "",
        file: str = "",
        line: int | None = None,
    ) -> None:
        # Kept apart so that a CI host can annotate the very line.
        self.file = file
        self.line = line
        if not where and file:
            where = f"{file}:{line}" if line else file
        super().__init__(what, where=where, why=why, remedy=remedy)


class InputError(MlcicdError):
    """An input file, table or artifact is missing or corrupt (exit 4)."""

    exit_code = ExitCode.INPUT


class ServiceError(MlcicdError):
    """A registry, target, network or permission failed or refused (exit 5)."""

    exit_code = ExitCode.SERVICE


class CommandFailed(MlcicdError):
    """The user's own command (training, loading, scoring) failed: the gate it stands for fails (exit 1)."""

    exit_code = ExitCode.GATE_FAILED


class DefectError(MlcicdError):
    """Something that can not happen happened: a defect of ours (exit 70)."""

    exit_code = ExitCode.DEFECT


# Literal secrets, learnt from the environment of the project that is loaded.
_LITERALS: set[str] = set()
_SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|api_?key|access_?key|private_?key|credential)")
_SHORTEST_SECRET = 6
_SHORTEST_LINE = 8
# Lines of a secret that are none: the frame of a PEM text, and single words, which would take holes into every log.
_COMMON = re.compile(r"-+(BEGIN|END)[A-Z0-9 ]*-+|\W+|[A-Z]?[a-z]+")
# Bounded, since a scheme without an end would be looked for from each letter of a long word.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s'\"<>]+")
_SECRET_PAIR = re.compile(
    # A word is looked at from its beginning only: from each of its letters, a long one would take quadratic time.
    r"(?i)(?<![\w-])([\w-]*(?:authorization|api[-_]?key|access[-_]?key|secret[-_]?key|password|passwd|token|secret)[\"']?)"
    r"(\s*[=:]\s*[\"']?)(?:bearer\s+|basic\s+)?[^\s,;&'\"]+"
)


def learn_secrets(environ: Mapping[str, str]) -> None:
    """Remembers the values of variables that are named like secrets: :func:`redact` takes them out from now on.

    Of a value of several lines (a PEM key) each line of its own, too: logs are read, and shown, line by line.
    """
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            _LITERALS.add(value)
            lines = [line.strip() for line in value.splitlines()]
            if len(lines) > 1:
                _LITERALS.update(line for line in lines if len(line) >= _SHORTEST_LINE and not _COMMON.fullmatch(line))


def learn_secret(value: str) -> None:
    """Remembers one secret, whatever its variable is named: :func:`redact` takes it out from now on."""
    learn_secrets({"secret": value})


def known_secrets() -> list[str]:
    """What was learnt so far, the longest first: a whole key before its lines."""
    return sorted(_LITERALS, key=len, reverse=True)


def redact(text: str) -> str:
    """Takes secrets out of a text: user and password of URLs, values of `token=...`-like pairs, learnt literals.

    Errors carry other programs' messages, and those like to print the URL they failed on.
    """

    def _url(match: re.Match[str]) -> str:
        try:
            parts = urlsplit(match.group(0))
        except ValueError:
            return "<url>"
        if parts.username is None and parts.password is None:
            return match.group(0)
        # A user name alone may be a token, too.
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"***@{host}"))

    # The longest first: of a whole key, the last line may be too short to be known by itself.
    for secret in known_secrets():
        text = text.replace(secret, "***")
    return _SECRET_PAIR.sub(r"\1\2***", _URL.sub(_url, text))
