"""The model servers of a local target: found again, started, waited for, stopped."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import CommandFailed, ConfigError, MlcicdError, ServiceError
from mlcicd.core.files import write_atomic
from mlcicd.targets import processes
from mlcicd.targets.processes import Process
from mlcicd.targets.router import cluster_name
from mlcicd.targets.state import DeployedVersion, StateFolder

# A request has few rows: pools of threads inside it wait for each other, and for those of other requests, more than
# they compute. Whoever sets these variables is heard.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# What concerns no single server.
_OF_THE_TARGET = ("replicas", "ready_timeout_s", "drain_s")


@dataclass(frozen=True)
class ServerSettings:
    """How model servers run; :class:`~mlcicd.targets.local.LocalTarget` says what each number means.

    Raises:
        ConfigError: one of them makes no sense.
    """

    replicas: int = 1
    threads: int = 1
    ready_timeout_s: float = 120.0
    drain_s: float = 30.0
    max_body_bytes: int = 16 << 20
    request_timeout_s: float = 30.0
    max_pending: int = 256
    batching: str = "auto"
    inference_log: Mapping[str, Any] | None = None
    token_env: str = ""
    max_memory_mb: float | None = None

    @property
    def mark(self) -> str:
        """What a server is started with, in one word: two that differ here were started differently."""
        own = {key: value for key, value in asdict(self).items() if key not in _OF_THE_TARGET}
        if self.max_memory_mb is None:
            del own["max_memory_mb"]  # servers that were started before there was one are no others
        return digest_json(own)

    def __post_init__(self) -> None:
        if self.batching not in ("auto", "on", "off"):
            raise ConfigError(f"batching must be auto, on or off, not {self.batching!r}")
        unknown = set(self.inference_log or ()) - {"sample", "redact", "max_mb", "keep"}
        if unknown:
            raise ConfigError(f"inference_log does not know {', '.join(sorted(unknown))}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, not {value}")


@dataclass(frozen=True)
class Slot:
    """The place of one server process: a replica of one deployment of a version."""

    deployed: DeployedVersion
    replica: int

    @property
    def key(self) -> str:
        launch = f"-{self.deployed.launch}" if self.deployed.launch else ""
        return f"server-{deployment_key(self.deployed)}-{self.replica}{launch}"


@dataclass(frozen=True)
class _Started:
    process: Process
    log: Path
    log_start: int


def deployment_key(deployed: DeployedVersion) -> str:
    """A name for one deployment of a version that is safe as a file's name."""
    return f"{cluster_name(deployed.version)}-{deployed.generation}"


class Servers:
    """The server processes of one state folder."""

    def __init__(self, folder: StateFolder, settings: ServerSettings) -> None:
        self._folder = folder
        self._settings = settings

    def slots(self, versions: Iterable[DeployedVersion]) -> list[Slot]:
        return [Slot(version, replica) for version in versions for replica in range(self._settings.replicas)]

    def model_path(self, deployed: DeployedVersion) -> Path:
        return self._folder.models / deployment_key(deployed)

    def ensure(self, versions: Collection[DeployedVersion]) -> tuple[dict[str, list[int]], dict[str, MlcicdError]]:
        """Starts the servers that do not run and waits until all are ready or have failed.

        Returns:
            The ports of the servers that are ready, by version, and the error of each version that lacks one or more.
            Those of its servers that are ready go on.
        """
        slots = self.slots(versions)
        failures: dict[str, MlcicdError] = {}
        started: dict[Slot, _Started] = {}
        for slot in slots:
            process = self.process(slot)
            if process is None:
                try:
                    started[slot] = self._start(slot)
                except ServiceError as error:
                    failures[slot.deployed.version] = error
            else:
                started[slot] = _Started(process, self._log(slot), 0)
        deadline = time.monotonic() + self._settings.ready_timeout_s
        waiting, up = set(started), set()
        while waiting:
            for slot in sorted(waiting, key=lambda slot: slot.key):
                if self.ready(slot):
                    up.add(slot)
                    waiting.discard(slot)
                elif not started[slot].process.alive():
                    failures[slot.deployed.version] = _ended(slot, started[slot])
                    waiting.discard(slot)
            if waiting and time.monotonic() > deadline:
                for slot in waiting:
                    failures[slot.deployed.version] = self._too_slow(slot, started[slot])
                waiting.clear()
            time.sleep(processes.POLL_S if waiting else 0)
        # What does not answer by now only holds memory; one beside it that does may be what serves everybody.
        processes.stop([found.process for slot, found in started.items() if slot not in up], grace_s=1.0)
        ports: dict[str, list[int]] = {}
        for slot in slots:
            port = self.port(slot)
            if slot in up and port is not None:
                ports.setdefault(slot.deployed.version, []).append(port)
        return ports, failures

    def process(self, slot: Slot) -> Process | None:
        """The slot's process if it runs."""
        record = _read(self._record(slot.key))
        if record is None:
            return self._orphan(slot)
        process = Process(int(record["pid"]), str(record["started"]))
        return process if process.alive() else self._orphan(slot)

    def _orphan(self, slot: Slot) -> Process | None:
        """A server that was started for the slot by someone who died before writing it down."""
        wanted = self._run_file(slot)
        for process, path in processes.with_argument(self._folder.run).items():
            if path == wanted:
                self._write_record(slot, process)
                return process
        return None

    def outdated(self, slot: Slot) -> bool:
        """Whether the slot's process is known to have been started with other settings."""
        record = _read(self._record(slot.key))
        started_with = record.get("settings") if record else None
        return bool(started_with) and started_with != self._settings.mark

    def port(self, slot: Slot) -> int | None:
        """The port the slot's process said it listens on."""
        record, announced = _read(self._record(slot.key)), _read(self._run_file(slot))
        if record is None or announced is None or announced["pid"] != record["pid"]:
            return None
        return int(announced["port"])

    def ready(self, slot: Slot) -> bool:
        """Whether the slot's own server says that its model is loaded."""
        port = self.port(slot)
        if port is None:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
        try:
            connection.request("GET", "/ready")
            response = connection.getresponse()
            return response.status == 200 and response.getheader("x-mlcicd-version") == slot.deployed.version
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, slots: Sequence[Slot]) -> None:
        """Stops the servers of slots that no request is sent to."""
        running = [process for slot in slots if (process := self.process(slot)) is not None]
        processes.stop(running, grace_s=1.0)

    def stop_except(self, slots: Sequence[Slot]) -> None:
        """Stops every server of the folder that has none of these slots, also those nobody wrote down."""
        kept = {self._run_file(slot) for slot in slots}
        surplus = [
            process
            for process, path in processes.with_argument(self._folder.run).items()
            if path.name.startswith("server-") and path not in kept
        ]
        processes.stop(surplus, grace_s=self._settings.drain_s)
        for file in self._folder.run.glob("server-*.json"):
            if self._run_file_of(file) not in kept:
                file.unlink(missing_ok=True)

    def _start(self, slot: Slot) -> _Started:
        run_file, log = self._run_file(slot), self._log(slot)
        before = _read(run_file)
        run_file.unlink(missing_ok=True)
        # The old port if it is free: then the router needs to learn nothing.
        port = int(before["port"]) if before and _is_free(int(before["port"])) else 0
        log_start = log.stat().st_size if log.exists() else 0
        settings, deployed = self._settings, slot.deployed
        script = Path(__file__).resolve().parent.parent / "serving" / "server"
        options = {
            "--model": self.model_path(deployed),
            "--name": deployed.name,
            "--version": deployed.version,
            "--port": port,
            "--run-file": run_file,
            "--threads": settings.threads,
            "--max-body-bytes": settings.max_body_bytes,
            "--timeout-s": settings.request_timeout_s,
            "--max-pending": settings.max_pending,
            "--batching": settings.batching,
        }
        argv = [deployed.python, str(script), *(str(part) for option in options.items() for part in option)]
        argv += self._log_arguments(slot)
        if settings.max_memory_mb is not None:
            # What leaks, leaks alike in all servers of a version: a tenth apart, they do not all end at once.
            argv += ["--max-memory-mb", str(settings.max_memory_mb * max(1 - slot.replica / 10, 0.5))]
        env = {**_ONE_THREAD, **processes.plain_environment()}
        if settings.token_env:
            argv += ["--token-env", settings.token_env]
            env[settings.token_env] = _token(settings.token_env)
        process = processes.spawn(argv, env=env, log=log)
        self._write_record(slot, process, settings.mark)
        return _Started(process, log, log_start)

    def _log_arguments(self, slot: Slot) -> list[str]:
        wanted = self._settings.inference_log
        if wanted is None:
            return []
        redacted = [f"--log-redact={column}" for column in wanted.get("redact", ())]
        numbers = {
            f"--log-{key.replace('_', '-')}": wanted[key] for key in ("sample", "max_mb", "keep") if key in wanted
        }
        file = self._folder.logs / f"inference-{slot.key.removeprefix('server-')}.jsonl"
        return ["--inference-log", str(file), *redacted, *(f"{key}={value}" for key, value in numbers.items())]

    def _write_record(self, slot: Slot, process: Process, settings: str = "") -> None:
        record = {"pid": process.pid, "started": process.started, "settings": settings}
        write_atomic(self._record(slot.key), json.dumps(record), mode=0o600)

    def _run_file(self, slot: Slot) -> Path:
        return self._folder.run / f"{slot.key}.json"

    @staticmethod
    def _run_file_of(file: Path) -> Path:
        return file.with_name(re.sub(r"\.process\.json$", ".json", file.name))

    def _record(self, key: str) -> Path:
        return self._folder.run / f"{key}.process.json"

    def logs(self, deployed: DeployedVersion) -> list[Path]:
        """The logs of a version's servers, written or not."""
        return [self._log(slot) for slot in self.slots([deployed])]

    def _log(self, slot: Slot) -> Path:
        return self._folder.logs / f"{slot.key}.log"

    def _too_slow(self, slot: Slot, started: _Started) -> ServiceError:
        processes.ask_for_stacks(started.process)
        return ServiceError(
            f"version {slot.deployed.version} was not ready after {self._settings.ready_timeout_s:g} s",
            where=str(started.log),
            why=processes.log_tail(started.log, since=started.log_start, lines=40),
            remedy="allow a longer time to load, or make the model load faster",
        )


def _ended(slot: Slot, started: _Started) -> CommandFailed:
    return CommandFailed(
        f"the server of version {slot.deployed.version} ended before it was ready",
        where=str(started.log),
        why=processes.log_tail(started.log, since=started.log_start),
        remedy="load the model with mlflow.pyfunc.load_model in the same environment to see the error",
    )


def _token(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ServiceError(
            f"the environment variable {variable} is not set",
            why="It holds the token that the model server asks of its callers.",
            remedy="set it, in CI from a secret",
        )
    return value


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content


def _is_free(port: int) -> bool:
    return port_is_free("127.0.0.1", port)


def port_is_free(host: str, port: int) -> bool:
    """Whether a listener could take the port right now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """A port nobody listens on at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
