"""A training's processes: measured, ended whatever becomes of us, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcicd.core.errors import CommandFailed, InputError
from mlcicd.core.process import shell_command
from mlcicd.training import Job, TrainingRun, run_training
from mlcicd.training.command import METER

MODEL = "mkdir -p model && echo 'flavors: {}' > model/MLmodel"
# As torchrun does: workers in sessions of their own, so that a signal to the group does not reach them.
LAUNCHER = """\
import pathlib, subprocess, sys, time
worker = "import pathlib,os,sys,time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
for name in ("one.pid", "two.pid"):
    subprocess.Popen([sys.executable, "-c", worker, name], start_new_session=True)
time.sleep(600)
"""


def train(root: Path, command: str, *, timeout: float = 300, **options: object) -> TrainingRun:
    return run_training(
        root,
        job=Job(shell_command(command), command),
        artifact="model",
        python=sys.executable,
        environ=dict(os.environ),
        tracking={},
        seed=3,
        timeout=timeout,
        **options,  # type: ignore[arg-type]
    )


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pids(root: Path) -> list[int]:
    return [int(path.read_text() or 0) for path in sorted(root.glob("*.pid"))]


def test_figures_are_of_the_whole_tree(tmp_path: Path) -> None:
    eat = "import time; food = bytearray(150 << 20)\\nwhile time.process_time() < 0.5: 0\\ntime.sleep(2)"
    hungry = textwrap.dedent(f"""\
        import subprocess, sys
        for child in [subprocess.Popen([sys.executable, "-c", "{eat}"]) for _ in range(2)]:
            child.wait()
    """)
    (tmp_path / "hungry.py").write_text(hungry)
    done = train(tmp_path, f"python hungry.py && {MODEL}").completed
    # Each of the two has 150 MiB, at the same time: no single process had so much.
    assert done.peak_bytes > 290 << 20
    assert done.cpu_seconds >= 1.0
    assert done.wall_seconds >= 2.0


def test_a_small_training_is_not_charged_for_a_big_one_before(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", "bytearray(300 << 20)"], check=True)
    assert train(tmp_path, MODEL).completed.peak_bytes < 100 << 20


def test_what_is_left_running_is_ended_and_told(tmp_path: Path) -> None:
    done = train(tmp_path, f"{MODEL}; setsid sleep 600 & echo $! > one.pid; nohup sleep 601 & echo $! > two.pid")
    assert done.leftovers == ("sleep", "sleep")
    assert not any(map(alive, pids(tmp_path)))


def test_a_helper_that_ends_by_itself_is_not_told(tmp_path: Path) -> None:
    assert train(tmp_path, f"{MODEL}; sleep 0.2 &").leftovers == ()


def test_timeout_ends_workers_in_sessions_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    with pytest.raises(CommandFailed, match="its timeout"):
        train(tmp_path, "echo begun; python launcher.py", timeout=8)
    assert len(pids(tmp_path)) == 2
    assert not any(map(alive, pids(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_every_process(project: Path, number: signal.Signals) -> None:
    (project / "train.py").write_text(LAUNCHER)
    tool = subprocess.Popen(
        [sys.executable, "-m", "mlcicd", "train"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until(lambda: len(pids(project)) == 2 and all(pids(project)))
        workers = pids(project)
        tool.send_signal(number)
        said = tool.communicate(timeout=60)[0].decode()
        until(lambda: not any(map(alive, workers)))
    finally:
        tool.kill()
    assert tool.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL), said
    assert not (project / "model").exists()


@pytest.mark.slow
def test_killed_half_way_and_run_again(project: Path) -> None:
    from mlcicd.config import load_project
    from mlcicd.stages import train as stage
    from mlcicd.stages.common import registry_of

    cheap = (project / "train.py").read_text()
    (project / "train.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('model').mkdir(); pathlib.Path('model/half').touch()\n"
        "pathlib.Path('one.pid').write_text(str(os.getpid())); time.sleep(600)\n"
    )
    tool = subprocess.Popen([sys.executable, "-m", "mlcicd", "train"], cwd=project, stdout=subprocess.DEVNULL)
    try:
        until(lambda: any(pids(project)))
        (trainer,) = pids(project)
    finally:
        tool.kill()
        tool.wait()
    until(lambda: not alive(trainer))
    (project / "train.py").write_text(cheap)
    verdict = stage(load_project(project, environ=dict(os.environ)))
    assert verdict.exit_code == 0, verdict.summary
    assert not (project / "model" / "half").exists()
    registry = registry_of(load_project(project, environ={}))
    assert registry.running_runs({"mlflow.source.name": "python train.py"}) == []


def test_a_hundred_megabytes_of_output(tmp_path: Path) -> None:
    class Counting:
        count = 0

        def step(self, message: str) -> None:
            """Not counted."""

        def output(self, line: str) -> None:
            self.count += len(line)

    progress = Counting()
    loud = 'import sys\nfor _ in range(100): sys.stdout.write("x" * (1 << 20))\nprint(); print("the end"); sys.exit(3)'
    (tmp_path / "loud.py").write_text(loud)
    with pytest.raises(CommandFailed) as caught:
        train(tmp_path, "python loud.py", progress=progress)
    assert caught.value.log[-1] == "the end"
    assert sum(map(len, caught.value.log)) < 10_000
    assert progress.count >= 100 << 20


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("kill -9 $$", "killed by signal 9"),
        ("bash -c 'kill -9 $$'; exit $?", "out of memory"),
        ("exit 7", "exit code 7"),
        ("/no/such/program", "exit code 127"),
        ("kill -11 $$", "signal 11"),
    ],
)
def test_endings_are_told(tmp_path: Path, command: str, told: str) -> None:
    with pytest.raises(CommandFailed, match=told):
        train(tmp_path, command)


def test_seeds_and_run_reach_the_command(tmp_path: Path) -> None:
    made = train(tmp_path, f"{MODEL}; echo $MLCICD_SEED $PYTHONHASHSEED > model/seeds")
    assert (made.model / "seeds").read_text().split() == ["3", "3"]


def test_no_model_is_told_with_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="left no MLflow model") as caught:
        train(tmp_path, "echo saved to elsewhere")
    assert caught.value.log == ("saved to elsewhere",)


def test_a_link_is_no_model(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "MLmodel").write_text("flavors: {}")
    root = tmp_path / "project"
    root.mkdir()
    with pytest.raises(CommandFailed, match="symbolic link"):
        train(root, f"ln -s {outside} model")
    with pytest.raises(InputError, match="symbolic link"):
        train(root, MODEL)
    (root / "model").unlink()
    with pytest.raises(InputError, match="symbolic link stands in the directory"):
        train(root, f"{MODEL}; ln -s /etc/hostname model/data")
    assert (outside / "MLmodel").read_text() == "flavors: {}"


def test_what_is_no_model_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no model"):
        train(tmp_path, MODEL)
    assert (tmp_path / "model" / "thesis.tex").read_text() == "years of work"


def test_meter_without_its_parent_ends_the_tree(tmp_path: Path) -> None:
    """The parent dies of SIGKILL, and says nothing to anyone."""
    program = "import subprocess,sys; subprocess.Popen(sys.argv[1:], start_new_session=True).wait()"
    work = "echo $$ > one.pid; sleep 600 & echo $! > two.pid; trap '' TERM; wait; wait"
    command = [sys.executable, "-I", "-S", str(METER), str(tmp_path / "figures.json"), *shell_command(work)]
    parent = subprocess.Popen([sys.executable, "-c", program, *command], cwd=tmp_path)
    until(lambda: len(pids(tmp_path)) == 2 and all(pids(tmp_path)))
    parent.kill()
    parent.wait()
    until(lambda: not any(map(alive, pids(tmp_path))))
