"""Children: streamed, bounded, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.process import run_child, shell_command, user_environment


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, message: str) -> None:
        self.lines.append(message)

    def output(self, line: str) -> None:
        self.lines.append(line)


def run(command: str, tmp_path: Path, timeout: float = 30, recorder: Recorder | None = None):
    return run_child(
        shell_command(command),
        cwd=tmp_path,
        env=dict(os.environ),
        timeout=timeout,
        what="it",
        progress=recorder or Recorder(),
    )


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody reaped has."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_output_is_streamed_in_order_and_kept(tmp_path: Path) -> None:
    recorder = Recorder()
    done = run("echo a; echo b >&2; printf '10%%\\r20%%\\n'; printf no-newline; exit 3", tmp_path, recorder=recorder)
    assert done.returncode == 3
    assert done.tail == ("a", "b", "20%", "no-newline")
    assert recorder.lines == list(done.tail)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    done = run(r"printf '\033]0;title\007\033[31mred\033[0m\n'", tmp_path)
    assert done.tail == ("red",)


def test_pipes_fail_and_input_is_empty(tmp_path: Path) -> None:
    assert run("false | cat", tmp_path).returncode != 0
    assert run("cat", tmp_path).tail == ()


def test_resources_are_measured(tmp_path: Path) -> None:
    done = run_child(
        [sys.executable, "-c", "x = bytearray(200 << 20); sum(range(3_000_000))"],
        cwd=tmp_path,
        env=dict(os.environ),
        timeout=60,
        what="it",
    )
    assert done.peak_bytes > 200 << 20
    assert done.cpu_seconds > 0


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="timeout"):
        run("sleep 60 & echo $! > pid; trap '' TERM; wait", tmp_path, timeout=1)
    assert gone(int((tmp_path / "pid").read_text()))


def test_no_such_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can not run"):
        run_child(["/no/such"], cwd=tmp_path, env={}, timeout=1, what="it")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_us_ends_the_child_and_its_children(tmp_path: Path, sent: signal.Signals) -> None:
    program = (
        "from mlcicd.core.process import *; import os, pathlib\n"
        "run_child(shell_command('sleep 60 & echo $! > pid.tmp; mv pid.tmp pid; wait'), "
        "cwd=pathlib.Path('.'), env=dict(os.environ), timeout=60, what='it')"
    )
    ours = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE)
    pid_file = tmp_path / "pid"
    for _ in range(200):
        if pid_file.exists():
            break
        time.sleep(0.05)
    ours.send_signal(sent)
    _out, err = ours.communicate(timeout=30)
    assert b"KeyboardInterrupt" in err
    assert gone(int(pid_file.read_text()))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_child_is_being_started_ends_it_too(tmp_path: Path, sent: signal.Signals) -> None:
    program = (
        "import os, pathlib, signal, subprocess\n"
        "from mlcicd.core.process import run_child\n"
        "start = subprocess.Popen\n"
        "def interrupted(*a, **k):\n"
        "    child = start(*a, **k)\n"
        "    pathlib.Path('pid').write_text(str(child.pid))\n"
        f"    os.kill(os.getpid(), {int(sent)})\n"
        "    return child\n"
        "subprocess.Popen = interrupted\n"
        "run_child(['sleep', '60'], cwd=pathlib.Path('.'), env=dict(os.environ), timeout=60, what='it')"
    )
    command = [sys.executable, "-c", program]
    ours = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=50, check=False)
    assert b"KeyboardInterrupt" in ours.stderr
    assert gone(int((tmp_path / "pid").read_text()))


def test_user_environment_is_theirs() -> None:
    env = user_environment(
        {"PATH": "/usr/bin", "PYTHONPATH": "lib", "MLCICD_INPUT_FORCE": "true", "MLCICD_PRIVATE_ENV": "1"},
        "/opt/py/bin/python",
        {"MLFLOW_RUN_ID": "r"},
    )
    assert env == {"PATH": "/opt/py/bin:/usr/bin", "PYTHONPATH": "lib", "MLFLOW_RUN_ID": "r"}
