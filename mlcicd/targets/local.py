"""The `local` target: model servers and an Envoy router as detached processes on one machine.

No root, no container, no service: everything lives in one state folder, survives the CI job that started
it, and is found again by the next one::

    target = LocalTarget("production", Path(".mlcicd/local/production"), port=8080)
    url = target.deploy(version)          # beside the live one, without traffic
    target.set_share(version.version, 0.05)
    target.promote(version.version)
    target.rollback()
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlcicd.core.errors import ConfigError, MlcicdError, ServiceError
from mlcicd.core.files import is_locked, locked
from mlcicd.targets.base import Counters, ModelVersion, TargetStatus, checked_share, way_back
from mlcicd.targets.local_copies import check_same
from mlcicd.targets.local_world import Endpoint, LocalWorld
from mlcicd.targets.processes import Process
from mlcicd.targets.servers import ServerSettings, free_port
from mlcicd.targets.state import DeployedVersion, Desired, Part, StateFolder
from mlcicd.targets.supervisor import Supervisor
from mlcicd.targets.tls import Tls
from mlcicd.targets.watchdog import Watchdog

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class LocalTarget:
    """Serves one model of one environment on this machine.

    Args:
        environment: its name, as in the configuration; a folder belongs to one environment.
        state_dir: where everything is kept.
        port: where the router listens; 0 takes a free one once and keeps it.
        host: the interface the router listens on. The servers behind it listen on loopback only.
        replicas: server processes per version; with two, one may die and no request is lost.
        threads: predictions at a time in one server.
        ready_timeout_s: the longest a model may take to load.
        drain_s: the longest a request in flight is waited for before its server is stopped.
        max_body_bytes: larger requests are refused.
        request_timeout_s: the longest one request may take.
        sticky_header: requests with the same value of this header get the same version while a canary's
            share grows.
        sticky_cookie: the same by the value of a cookie that the application sets, such as its session's.
        supervise: keep a process beside the router that starts again what has died.
        max_pending: requests that wait or run in one server; those beyond are refused with 503.
        batching: whether requests that wait together are predicted together: `on`, `off`, or `auto`, for
            flavours of models whose rows are known to be independent.
        inference_log: `sample`, `redact`, `max_mb`, `keep` of a log of requests and answers in `logs/`; None
            writes none.
        token_env: the environment variable with the token that callers must send.
        max_memory_mb: resident memory (MiB) at which a server ends, after the requests in flight; the supervisor starts
            it anew. Of a version's servers, each after the first has a tenth of it less, half at the least. None is
            no bound.
        tls: PEM files of the endpoint: `certificate`, `key` and, where callers need a certificate, `client_ca`. Read
            by each command; `KEPT_TLS` is what the one before has read. The servers behind the router have none.

    Raises:
        ConfigError: one of the numbers makes no sense.
    """

    # `deploy.token_env` and `deploy.inference_log` reach its servers.
    takes_server_options = True

    def __init__(
        self,
        environment: str,
        state_dir: Path,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        replicas: int = 1,
        threads: int = 1,
        ready_timeout_s: float = 120.0,
        drain_s: float = 30.0,
        max_body_bytes: int = 16 << 20,
        request_timeout_s: float = 30.0,
        sticky_header: str = "",
        sticky_cookie: str = "",
        supervise: bool = True,
        max_pending: int = 256,
        batching: str = "auto",
        inference_log: Mapping[str, Any] | None = None,
        token_env: str = "",
        tls: Mapping[str, str] | None = None,
        max_memory_mb: float | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"not a port: {port}")
        self.environment = environment
        self._folder = StateFolder(Path(state_dir).absolute())
        self._port = port
        self._settings = ServerSettings(
            replicas,
            threads,
            ready_timeout_s,
            drain_s,
            max_body_bytes,
            request_timeout_s,
            max_pending,
            batching,
            inference_log,
            token_env,
            max_memory_mb,
        )
        self._endpoint = Endpoint(host, sticky_header, sticky_cookie, tls)
        self._world = LocalWorld(environment, self._folder, self._settings, self._endpoint)
        self._watchdog = Watchdog(self._folder)
        self._supervisor = Supervisor(self._folder)
        self._supervise = supervise

    # --- what one asks for

    def deploy(self, version: ModelVersion) -> str:
        """Copies and verifies a version, starts its servers beside the live one, and waits until they are
        ready.

        Returns:
            The URL of that version's own first server.

        Raises:
            InputError: the bytes are not those of the digest, or the version is deployed with other bytes.
            CommandFailed: the model can not be loaded; the reason holds the last lines of the server's log.
            ServiceError: it took too long; another canary has traffic; the router can not be started.
        """
        if not _VERSION.fullmatch(version.version):
            raise ConfigError(f"not a version: {version.version!r}")
        with self._locked() as before:
            held = before.versions.get(version.version)
            if held is not None:
                check_same(held, version)
            if before.canary not in (None, version.version) and before.share > 0:
                raise ServiceError(
                    f"version {before.canary} is a canary with {before.share:.1%} of the traffic",
                    where=self.environment,
                    remedy="promote or abort it first",
                )
            tls = self._world.certificates()
            after = self._with(before, held or self._world.take(before, version))
            if held is None:
                self._replace(before, after, tls)
            else:
                self._folder.write(after)
                self._world.converge(after, tls)
            return self._world.own_url(after, version.version)

    def set_share(self, version: str, share: float) -> None:
        """Sends a share (0 to 1) of the traffic to the canary, the rest to the live version.

        Raises:
            ConfigError: the share is not a number from 0 to 1.
            ServiceError: the version is not deployed as a canary, or nothing is live beside it.
        """
        share = checked_share(share)
        with self._locked() as desired:
            if desired.live is None:
                raise ServiceError("nothing is live yet", where=self.environment, remedy="promote a version first")
            if desired.canary != version:
                raise self._not_deployed(desired, version, "as a canary")
            # A request is answered by the canary or copied to it, never both.
            mirror = 0.0 if share and desired.mirror else desired.mirror
            tls = self._world.certificates() if share else self._world.certificates_at_hand()
            self._apply(desired.having(share=share, mirror=mirror), tls)

    def set_mirror(self, version: str, fraction: float) -> None:
        """Copies a part (0 to 1) of the requests to the canary, whose answers to them nobody sees; 0 ends it.

        Clients neither wait for the copies nor notice when they fail. Giving the canary traffic ends it.

        Raises:
            ConfigError: the fraction is not a number from 0 to 1.
            ServiceError: the version is not deployed as a canary, nothing is live, or the canary has traffic.
        """
        fraction = checked_share(fraction)
        with self._locked() as desired:
            if desired.live is None:
                raise ServiceError("nothing is live yet", where=self.environment, remedy="promote a version first")
            if desired.canary != version:
                raise self._not_deployed(desired, version, "as a canary")
            if fraction and desired.share:
                raise ServiceError(
                    f"version {version} has {desired.share:.1%} of the traffic itself",
                    where=self.environment,
                    remedy="mirror before the first step, or set its share to 0",
                )
            tls = self._world.certificates() if fraction else self._world.certificates_at_hand()
            self._apply(desired.having(mirror=fraction), tls)

    def promote(self, version: str) -> None:
        """Makes a deployed version live. The version that was live becomes previous, and its servers stay
        warm.

        Raises:
            ServiceError: the version is not deployed, or its servers do not run and can not be started.
        """
        with self._locked() as desired:
            if version not in desired.versions:
                raise self._not_deployed(desired, version, "")
            tls = self._world.certificates()
            # All servers up before the new state is written: what is written from here on can be reached.
            self._world.converge(desired, tls)
            if desired.live != version:
                after = desired.having(live=version, previous=desired.live, canary=None, share=0.0, rolled_back=False)
                self._apply(after, tls)

    def rollback(self) -> str:
        """Makes the previous version live again and takes out any canary.

        Repeated after it has succeeded it changes nothing: it never goes back to the version that was
        taken out. Certificates that can not be read do not hold it up: the endpoint keeps those it has.

        Returns:
            The version that is live now.

        Raises:
            ServiceError: there is no previous version.
        """
        with self._locked() as desired:
            goal = way_back(
                desired.live, desired.previous, rolled_back=desired.rolled_back, environment=self.environment
            )
            tls = self._world.certificates_at_hand()
            if goal == desired.live:
                self._world.converge(desired, tls)
                return goal
            self._apply(desired.having(live=goal, previous=None, canary=None, share=0.0, rolled_back=True), tls)
            return goal

    def abort(self) -> None:
        """Takes the canary out of the traffic, then stops its servers. Nothing happens without one. Certificates that
        can not be read do not hold it up."""
        with self._locked() as desired:
            self._apply(desired.having(canary=None, share=0.0), self._world.certificates_at_hand())

    def attend(self, seconds: float) -> None:
        """Somebody looks after the canary. If nobody says so again within `seconds`, a process beside the router gives
        the live version all traffic, and ends a mirror; it ends with the canary's share.

        Raises:
            ConfigError: not a positive number of seconds.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            raise ConfigError(f"somebody looks for more than no time, not {seconds} s")
        with self._locked():
            self._watchdog.attend(seconds, self._arguments())

    def reconcile(self) -> None:
        """Restarts what has died and stops what is not wanted.

        Raises:
            CommandFailed: a version's servers can not be started.
            ServiceError: the router can not be started.
        """
        with self._locked() as desired:
            self._world.converge(desired, self._world.certificates() if desired.versions else None)

    def reload(self) -> None:
        """Starts servers of all versions with these settings beside those that run, gives them the traffic, and ends
        the others when they have answered what they had; the router moves to the configured port.

        No request is lost, but where the router itself has to start again: for another port, for TLS where there was
        none, or the other way round.

        Raises:
            CommandFailed, ServiceError: they do not start; what ran before goes on.
        """
        with self._locked() as before:
            if not before.versions:
                return
            anew = {name: held.model_copy(update={"launch": held.launch + 1}) for name, held in before.versions.items()}
            after = before.having(versions=anew)
            if self._port:
                after = after.model_copy(update={"port": self._port})
            self._replace(before, after, self._world.certificates())
            self._watchdog.retell(self._arguments())

    def heal(self, still: Callable[[], bool]) -> None:
        """What :meth:`reconcile` does, for the supervisor, which does not look after itself.

        Args:
            still: asked when nobody else can change anything any more; where it says no, nothing is done.

        Raises:
            CommandFailed: a version's servers can not be started.
            ServiceError: the router can not be started.
        """
        with locked(self._folder.lock):
            desired = self._read() if still() else None
            if desired is not None and desired.versions:
                self._world.converge(desired, self._world.certificates())

    def stop(self) -> None:
        """Stops every process, after the requests in flight, and forgets the versions. Logs and the port
        stay."""
        with self._locked() as desired:
            nothing = Desired(environment=desired.environment, port=desired.port, generation=desired.generation)
            self._apply(nothing, None)

    # --- what one sees

    def status(self) -> TargetStatus:
        """What is wanted and what of it runs; starts and stops nothing."""
        desired = self._read()
        return TargetStatus(
            environment=self.environment,
            url=self._world.url(desired),
            live=desired.live,
            canary=desired.canary,
            previous=desired.previous,
            share=desired.share,
            processes=tuple(self._world.processes(desired)),
            notices=self._world.notices(desired, self._port),
        )

    def wanted(self) -> dict[Part, Process | None]:
        """The processes that should run; None for one that does not."""
        return self._world.wanted(self._read())

    def counters(self) -> Mapping[str, Counters]:
        """What the router counted, by version.

        Raises:
            ServiceError: the router does not run.
        """
        return self._world.counters(self._read())

    def mirror_counters(self) -> Mapping[str, Counters]:
        """What the router counted of the copies that went to the canary; empty when none ever did.

        Raises:
            ServiceError: the router does not run.
        """
        return self._world.mirror_counters(self._read())

    def failure(self, version: str) -> str:
        """What the version's model raises most often, from its servers' logs; empty when nothing is known."""
        try:
            deployed = self._read().versions.get(version)
        except MlcicdError:
            return ""
        return self._world.failure(deployed) if deployed else ""

    # --- inside

    def _arguments(self) -> dict[str, Any]:
        """What makes a target like this one, but for the folder; for processes beside it."""
        # The port is that of the state: whoever comes later moves nothing.
        own = {"environment": self.environment, "port": 0, "supervise": self._supervise}
        return {**own, **asdict(self._settings), **asdict(self._endpoint.kept())}

    def _replace(self, before: Desired, after: Desired, tls: Tls | None) -> None:
        """One state after another, or the first again. The router hears of it when all its servers are up."""
        had = self._world.certificates_in_force()
        self._folder.write(after)
        try:
            self._world.start(after)
        except MlcicdError:
            # Not wanted any more: otherwise every later call would try, and fail, to start it again.
            self._folder.write(before)
            self._world.withdraw(after, before)
            raise
        try:
            self._world.converge(after, tls)
        except MlcicdError:
            self._folder.write(before)
            self._world.converge(before, had)
            raise

    def _apply(self, desired: Desired, tls: Tls | None) -> None:
        self._folder.write(desired)
        self._world.converge(desired, tls)
        if desired.share == 0 and not desired.mirror:
            self._watchdog.stop()

    @contextmanager
    def _locked(self) -> Iterator[Desired]:
        """The desired state, for one caller at a time, with the port it will have.

        A command does not wait until the supervisor has started a model that loads for long: it goes first.
        """
        aside = is_locked(self._folder.lock)
        if aside:
            self._supervisor.step_aside()
        with locked(self._folder.lock):
            try:
                desired = self._prepared()
            except BaseException:
                # As it was told: what can not be read, or is another environment's, tells nothing else.
                if aside:
                    self._supervisor.resume()
                raise
            try:
                yield desired
            finally:
                self._supervised()

    def _prepared(self) -> Desired:
        """The desired state with a port, and the folders that everything else needs."""
        desired = self._read()
        if desired.port == 0:
            desired = desired.model_copy(update={"port": free_port(self._endpoint.host)})
        for folder in (self._folder.run, self._folder.models, self._folder.router):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return desired

    def _supervised(self) -> None:
        """A supervisor for as long as something is deployed, where one is wanted."""
        if self._supervise and self._read().versions:
            self._supervisor.ensure(self._arguments())
        else:
            self._supervisor.stop()

    def _read(self) -> Desired:
        desired = self._folder.read(self.environment, self._port)
        if desired.environment != self.environment:
            raise ConfigError(
                f"this folder belongs to the environment {desired.environment!r}, not {self.environment!r}",
                where=str(self._folder.root),
                remedy="give each environment a state folder of its own",
            )
        return desired

    @staticmethod
    def _with(before: Desired, deployed: DeployedVersion) -> Desired:
        """The state in which a version is deployed beside what is live."""
        version = deployed.version
        if version in (before.live, before.canary):
            return before
        return before.having(
            versions={**before.versions, version: deployed},
            generation=max(before.generation, deployed.generation),
            canary=version,
            share=0.0,
        )

    def _not_deployed(self, desired: Desired, version: str, role: str) -> ServiceError:
        held = ", ".join(sorted(desired.versions)) or "none"
        return ServiceError(
            f"version {version} is not deployed here {role}".rstrip(),
            where=self.environment,
            why=f"Deployed: {held}; live: {desired.live or 'none'}; canary: {desired.canary or 'none'}.",
            remedy="deploy it first",
        )
