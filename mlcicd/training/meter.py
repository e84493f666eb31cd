"""Runs a command, measures all that it starts, and lets nothing of it outlive it.

This file is run by its path, by mlcicd's own interpreter, between mlcicd and the user's command; it needs the standard
library alone::

    python -I -S meter.py FIGURES.json COMMAND [ARGUMENT ...]

It ends as the command ends. All that the command starts ends with it: its process group, and (on Linux) also what left
that group, as the workers of torchrun do. The same when it is sent SIGTERM, and when mlcicd itself is gone: a training
whose mlcicd was killed must not go on writing where the next one writes.
"""

# mypy: ignore-errors
# ruff: noqa: PTH112, PTH123, PTH208
# A script that has to start at once: no annotations, no imports that it could do without.

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

SUBREAPER = 36
SAMPLE_SECONDS = 0.5
# Less than the grace that mlcicd gives to this process.
GRACE_SECONDS = 4.0
# Helpers of a program (multiprocessing's resource tracker, a pool's workers) end a moment after it.
LINGER_SECONDS = 2.0
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Meter:
    def __init__(self, command):
        self.parent = os.getppid()
        self.stopping = False
        self.status = None
        self.cpu_seconds = 0.0
        self.peak_bytes = 0
        self.leftovers = []
        self.page = os.sysconf("SC_PAGE_SIZE")
        become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.stop)
        self.started = time.monotonic()
        self.child = subprocess.Popen(command)

    def stop(self, _number, _frame):
        self.stopping = True

    def run(self):
        pause, next_sample = 0.005, 0.0
        while self.reap() and self.status is None:
            if self.stopping or os.getppid() != self.parent:
                self.end_all(GRACE_SECONDS, told=self.stopping)
                return
            if time.monotonic() >= next_sample:
                self.sample()
                next_sample = time.monotonic() + SAMPLE_SECONDS
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        self.wait_for_none(LINGER_SECONDS)
        self.leftovers = sorted(name for _, name in self.descendants().values())
        self.end_all(GRACE_SECONDS)

    def reap(self):
        """Takes the children that have ended; false when there are none left at all."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * RSS_UNIT)
            if pid == self.child.pid:
                self.status = status

    def wait_for_none(self, seconds):
        until = time.monotonic() + seconds
        while self.reap() and time.monotonic() < until and not self.stopping:
            time.sleep(0.02)

    def end_all(self, grace, *, told=False):
        """Asks all to end, and ends those that do not. `told`: mlcicd has asked the process group already, and a
        program that is asked twice may drop what it was about to save."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
            alive = self.descendants()
            if not alive:
                return
            for pid in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if not (told and number == signal.SIGTERM and os.getpgid(pid) == os.getpgrp()):
                        os.kill(pid, number)
            until = time.monotonic() + patience
            while self.reap() and self.descendants() and time.monotonic() < until:
                time.sleep(0.02)

    def sample(self):
        """Resident memory of the whole tree now; pages that two of its processes share count for both."""
        total = 0
        for pid in self.descendants():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * self.page
        self.peak_bytes = max(self.peak_bytes, total)

    def descendants(self):
        """All living processes below this one: pid to (parent, name). Without /proc, those of the own group."""
        if not os.path.isdir("/proc/self"):
            alive = self.status is None
            return {self.child.pid: (os.getpid(), "")} if alive else {}
        known = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{entry}/stat", "rb") as file:
                    head, _, rest = file.read().rpartition(b")")
                    fields = rest.split()
                    if fields[0] not in (b"Z", b"X"):
                        known[int(entry)] = (int(fields[1]), head.partition(b"(")[2].decode("utf-8", "replace"))
        below, new = {}, {os.getpid()}
        while new:
            found = {pid: of for pid, of in known.items() if of[0] in new and pid not in below}
            below.update(found)
            new = set(found)
        return below

    def figures(self):
        return {
            "wall_seconds": time.monotonic() - self.started,
            "cpu_seconds": self.cpu_seconds,
            "peak_bytes": self.peak_bytes,
            "leftovers": self.leftovers,
        }


def become_subreaper():
    """Orphans of the tree become children of this process, so that they can be found, measured and ended."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


def end_as(status):
    """Ends this process as the command ended: with its exit code, or by its signal."""
    if status is None:
        raise SystemExit(128 + signal.SIGTERM)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # No second core file for one crash.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.stdout.flush()
    os._exit(os.WEXITSTATUS(status))


def main():
    figures, command = sys.argv[1], sys.argv[2:]
    try:
        meter = Meter(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        raise SystemExit(127) from None
    meter.run()
    with contextlib.suppress(OSError), open(figures, "w", encoding="utf-8") as file:
        json.dump(meter.figures(), file)
    end_as(meter.status)


if __name__ == "__main__":
    main()
