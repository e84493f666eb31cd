"""The router process of a local target: started, reconfigured, drained, stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence

from mlcicd.core.errors import ServiceError
from mlcicd.core.files import write_atomic
from mlcicd.targets import processes
from mlcicd.targets.base import Counters, ProcessStatus
from mlcicd.targets.processes import Process
from mlcicd.targets.router import RouterFiles, RouterSettings, find_envoy, mirrored
from mlcicd.targets.router_admin import RouterAdmin
from mlcicd.targets.servers import port_is_free
from mlcicd.targets.state import StateFolder
from mlcicd.targets.tls import Tls

START_TIMEOUT_S = 20.0
TAKE_TIMEOUT_S = 10.0


class LocalRouter:
    """The one router of a state folder."""

    def __init__(self, folder: StateFolder) -> None:
        self._record = folder.run / "router.process.json"
        # Envoy writes its admin address here, and its command line shows whose router it is.
        self._marker = folder.run / "router.address"
        self._run = folder.run
        self._log = folder.logs / "router.log"
        self._folder = folder.router

    def process(self) -> Process | None:
        """The router's process if it runs, also one that was never written down."""
        try:
            record = json.loads(self._record.read_bytes())
        except FileNotFoundError:
            record = None
        if record is not None:
            process = Process(int(record["pid"]), str(record["started"]))
            if process.alive():
                return process
        for process, path in processes.with_argument(self._run).items():
            if path == self._marker:
                self._write_record(process)
                return process
        return None

    def status(self, port: int) -> ProcessStatus:
        process = self.process()
        return ProcessStatus(
            role="router",
            version="",
            pid=process.pid if process else None,
            port=port if process else None,
            alive=process is not None,
            ready=process is not None and self._admin(RouterFiles(self._folder)).live(),
        )

    def tls(self) -> Tls | None:
        """The certificates it was given last."""
        return RouterFiles(self._folder).tls()

    def counters(self, version: str, generation: int) -> Counters:
        """The counters of one deployment of a version.

        Raises:
            ServiceError: the router does not run.
        """
        process = self.process()
        if process is None:
            raise ServiceError("the router does not run", remedy="reconcile the target, which restarts it")
        epoch = f"{process.pid}:{process.started}:{generation}"
        return self._admin(RouterFiles(self._folder)).counters(version, epoch=epoch)

    def converge(
        self,
        settings: RouterSettings,
        ports: Mapping[str, Sequence[int]],
        *,
        live: str | None,
        canary: str | None,
        share: float,
        mirror: float = 0.0,
    ) -> None:
        """Routes to these servers with these weights, starting the router if need be.

        A part `mirror` of the requests is copied to the canary, as to the version `mirrored(canary)` in `ports`.

        Versions routed to until now and not in `ports` lose their weight, and stay otherwise.

        Raises:
            ServiceError: the router can not be started, or refuses its configuration.
        """
        files = RouterFiles(self._folder)
        admin = self._admin(files)
        process = self.process()
        certificates = files.write_secrets(settings.tls)
        if files.write_bootstrap(settings) and process is not None:
            processes.stop([process], grace_s=5.0)
            process = None
        if process is None:
            files.write_clusters(ports)
            files.write_routes(settings, live, canary, share, mirror)
            self._start(files, admin, settings)
        for name, version in certificates.items():
            admin.wait_for_secret(name, version, timeout_s=TAKE_TIMEOUT_S)
        leaving = {version: held for version, held in files.ports().items() if version not in ports}
        admin.wait_for_clusters(files.write_clusters({**leaving, **ports}), timeout_s=TAKE_TIMEOUT_S)
        copies = mirrored(canary) if canary and mirror > 0 else None
        for version in filter(None, (live, canary if share > 0 else None, copies)):
            admin.wait_for_healthy(version, list(ports[version]), timeout_s=TAKE_TIMEOUT_S)
        admin.wait_for_routes(files.write_routes(settings, live, canary, share, mirror), timeout_s=TAKE_TIMEOUT_S)

    def forget_others(self, ports: Mapping[str, Sequence[int]], *, drain_s: float) -> None:
        """Lets the versions not in `ports` finish their requests, at most `drain_s`, and forgets them."""
        files = RouterFiles(self._folder)
        admin = self._admin(files)
        for version in files.ports().keys() - ports.keys():
            admin.wait_idle(version, timeout_s=drain_s)
        admin.wait_for_clusters(files.write_clusters(ports), timeout_s=TAKE_TIMEOUT_S)

    def stop(self, *, drain_s: float) -> None:
        """Takes no new connections, lets the requests in flight end, and ends the process."""
        process = self.process()
        if process is not None:
            files = RouterFiles(self._folder)
            admin = self._admin(files)
            if admin.live():
                admin.request("/drain_listeners?graceful&skip_exit", method="POST")
                admin.wait_idle(timeout_s=drain_s)
            processes.stop([process], grace_s=5.0)
            files.socket.unlink(missing_ok=True)
        for file in (self._record, self._marker, *RouterFiles(self._folder).secrets.values()):
            file.unlink(missing_ok=True)

    def _start(self, files: RouterFiles, admin: RouterAdmin, settings: RouterSettings) -> None:
        taken = ServiceError(
            f"port {settings.port} of {settings.host} is in use",
            why="The router of the local target could not listen there.",
            remedy="stop what listens there, or configure another port",
        )
        envoy = find_envoy()
        if not port_is_free(settings.host, settings.port):
            raise taken
        log_start = self._log.stat().st_size if self._log.exists() else 0
        argv = [str(envoy), "-c", str(files.bootstrap), "--admin-address-path", str(self._marker)]
        argv += [
            "--disable-hot-restart",
            "--concurrency",
            str(min(4, os.cpu_count() or 1)),
            "--log-level",
            "warning",
        ]
        process = processes.spawn(argv, env=processes.plain_environment(), log=self._log)
        self._write_record(process)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not admin.live():
            tail = processes.log_tail(self._log, since=log_start)
            if not process.alive():
                if "Address already in use" in tail:
                    raise taken
                raise ServiceError("the router ended at its start", where=str(self._log), why=tail)
            if time.monotonic() > deadline:
                raise ServiceError(f"the router was not up after {START_TIMEOUT_S:g} s", where=str(self._log), why=tail)
            time.sleep(processes.POLL_S)

    def _write_record(self, process: Process) -> None:
        record = {"pid": process.pid, "started": process.started}
        write_atomic(self._record, json.dumps(record), mode=0o600)

    @staticmethod
    def _admin(files: RouterFiles) -> RouterAdmin:
        return RouterAdmin(files.socket)
