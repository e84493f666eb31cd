"""Asks the model on Spark: each task runs `batch_runner.py` over some of the pieces, in an interpreter of its own.

The answers of a piece are the same file, wherever it was asked, and so is what is written of them: Spark decides where
the model runs, and nothing else. All machines see the input, the model and the folder of answers under the same paths,
and have an interpreter at the path of this one. Beside `batch_runner.py`; imports nothing of mlcicd.
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BESIDE = ("batch_runner.py", "batch_spark.py", "batch_tables.py", "score_loaders.py", "score_runner.py")
# Tasks a core, so that a slow one holds up little.
TASKS_A_CORE = 2


class NoSpark(Exception):
    """Spark does not start, or a task was lost; the message says why."""


def ask_on_spark(plan, pieces):
    """Asks for all pieces that have no answers yet.

    Returns:
        None; or the exit code and the words of a runner that refused.
    """
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise NoSpark(f"{sys.executable} can not import pyspark: install it there, or use --engine local") from None
    _end_with_the_command(plan["parent"])
    builder = SparkSession.builder.appName("mlcicd predict").config("spark.ui.showConsoleProgress", "false")
    if plan["spark"]["master"]:
        builder = builder.master(plan["spark"]["master"])
    for name, value in plan["spark"]["options"].items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise NoSpark(f"Spark does not start: {_first_line(error)}") from None
    try:
        context = session.sparkContext
        for name in BESIDE:
            context.addFile(str(Path(__file__).with_name(name)))
        context.addPyFile(__file__)
        spans = _spans(Path(plan["parts"]), pieces, TASKS_A_CORE * context.defaultParallelism)
        if not spans:
            return None
        asked = context.parallelize([(plan, span) for span in spans], len(spans)).map(_ask_some)
        return next((refused for refused in asked.collect() if refused is not None), None)
    except Exception as error:
        raise NoSpark(f"Spark failed: {_first_line(error)}") from None
    finally:
        session.stop()


def _spans(parts, pieces, tasks):
    """Ranges of pieces, first and last exclusive, without those that are answered from end to end."""
    size = max(1, -(-pieces // tasks))
    spans = [(first, min(first + size, pieces)) for first in range(0, pieces, size)]
    answered = {int(part.stem) for part in parts.glob("*.npy")}
    return [span for span in spans if not answered.issuperset(range(*span))]


def _ask_some(task):
    """In a worker of Spark: one process of the runner. What it refuses is final; what kills it, Spark tries again."""
    from pyspark import SparkFiles

    plan, (first, last) = task
    with tempfile.TemporaryDirectory(prefix="mlcicd-predict-") as folder:
        own = Path(folder, "plan.json")
        own.write_text(json.dumps({**plan, "parent": os.getpid()}), encoding="utf-8")
        argv = [sys.executable, SparkFiles.get("batch_runner.py"), str(own), str(first), str(last)]
        # Modules of the project are imported from its folder.
        done = subprocess.run(
            argv, cwd=plan["cwd"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    if done.returncode == 0:
        return None
    said = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("score: ")), "")
    if said and done.returncode in (1, 4):
        return done.returncode, said.partition("score: ")[2]
    raise RuntimeError(f"the runner ended with {done.returncode}: {said or done.stdout[-500:]}")


def _end_with_the_command(parent):
    """Ends this process, and with it Spark, when the command that started it was killed."""

    def look():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(5)

    threading.Thread(target=look, daemon=True).start()


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "RuntimeError: the runner ended" in line), "")
    return (told or (lines or [type(error).__name__])[0])[:500]
