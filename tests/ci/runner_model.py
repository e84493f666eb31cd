"""What a GitHub runner reads: its output files, and the commands in the lines a step prints.

Written from the documented behaviour of the runner, for tests to read back what the code under test wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

COMMANDS = {
    "error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "stop-commands", "set-output",
    "save-state", "set-env", "add-path", "add-matcher", "remove-matcher", "echo",
}  # fmt: skip


def read_outputs(text: str) -> list[tuple[str, str]]:
    """The names and values of an output file, in order, doubles included."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    outputs = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, _, value = line.partition("=")
            outputs.append((name, value))
            continue
        if heredoc < 0:
            raise ValueError(f"invalid line {line!r}")
        name, _, delimiter = line.partition("<<")
        if not name or not delimiter:
            raise ValueError(f"invalid line {line!r}")
        end = lines.index(delimiter, position)
        outputs.append((name, "\n".join(lines[position:end])))
        position = end + 1
    return outputs


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str]
    data: str


@dataclass
class Log:
    """Lines a runner received, taken apart into commands and plain text."""

    commands: list[Command] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


def read_log(printed: str) -> Log:
    """The commands that a runner carries out while it reads `printed`, `::stop-commands::` respected."""
    log = Log()
    stopped = ""
    for line in printed.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if stopped:
            if line.strip() == f"::{stopped}::" or f"##[{stopped}]" in line:
                stopped = ""
            continue
        command = _second_kind(line) or _first_kind(line)
        if command is None:
            log.text.append(line)
        elif command.name == "stop-commands":
            stopped = command.data
        else:
            log.commands.append(command)
    return log


def _second_kind(line: str) -> Command | None:
    line = line.lstrip()
    end = line.find("::", 2)
    if not line.startswith("::") or end < 0:
        return None
    info, data = line[2:end], line[end + 2 :]
    name, _, rest = info.partition(" ")
    if name not in COMMANDS:
        return None
    pairs = (part.split("=", 1) for part in rest.strip().split(",") if "=" in part)
    properties = {key: _unescape(value, "%0D", "%0A", "%3A", "%2C", "%25") for key, value in pairs}
    return Command(name, properties, _unescape(data, "%0D", "%0A", "%25"))


def _first_kind(line: str) -> Command | None:
    start = line.find("##[")
    end = line.find("]", start)
    if start < 0 or end < 0:
        return None
    name = line[start + 3 : end].partition(" ")[0]
    return Command(name, {}, line[end + 1 :]) if name in COMMANDS else None


def _unescape(text: str, *codes: str) -> str:
    for code in codes:
        text = text.replace(code, chr(int(code[1:], 16)))
    return text
