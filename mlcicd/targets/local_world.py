"""What runs of a local target: model servers, a router, copies of models; and how they get to a desired state."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import ConfigError, MlcicdError, ServiceError
from mlcicd.targets.base import Counters, ModelVersion, ProcessStatus
from mlcicd.targets.failures import commonest_failure
from mlcicd.targets.local_copies import copy_verified
from mlcicd.targets.local_router import LocalRouter
from mlcicd.targets.processes import Process
from mlcicd.targets.router import RouterSettings, mirrored
from mlcicd.targets.servers import Servers, ServerSettings
from mlcicd.targets.state import DeployedVersion, Desired, Part, StateFolder
from mlcicd.targets.tls import Tls, read_tls

# RFC 9110, section 5.6.2: what names of headers and cookies are made of.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# The certificates that the last command has read.
KEPT_TLS: Mapping[str, str] = {"kept": "as they are"}


@dataclass(frozen=True)
class Endpoint:
    """How callers reach the router; :class:`~mlcicd.targets.local.LocalTarget` says what each is.

    Raises:
        ConfigError: a header or a cookie can not have that name.
    """

    host: str
    sticky_header: str = ""
    sticky_cookie: str = ""
    tls: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for what, name in (("header", self.sticky_header), ("cookie", self.sticky_cookie)):
            if name and not _TOKEN.fullmatch(name):
                raise ConfigError(f"not the name of a {what}: {name!r}")

    def kept(self) -> Endpoint:
        """The same for a process that comes later: files of a CI job's secrets go with the job, and what was read of
        them is kept."""
        return self if self.tls is None else replace(self, tls=KEPT_TLS)


class LocalWorld:
    """The processes and copies of one state folder."""

    def __init__(self, environment: str, folder: StateFolder, settings: ServerSettings, endpoint: Endpoint) -> None:
        self._environment, self._folder = environment, folder
        self._settings, self._endpoint = settings, endpoint
        self._servers = Servers(folder, settings)
        self._router = LocalRouter(folder)

    def start(self, desired: Desired) -> None:
        """Starts the servers of a state, and sends them nothing.

        Raises:
            CommandFailed, ServiceError: one does not start. Those that have started go on.
        """
        _, failures = self._servers.ensure(list(desired.versions.values()))
        for error in failures.values():
            raise error

    def withdraw(self, after: Desired, before: Desired) -> None:
        """Stops what only the first state has, to which no request was sent, and forgets its copies. Nothing else is
        touched."""
        had = self._servers.slots(before.versions.values())
        self._servers.stop([slot for slot in self._servers.slots(after.versions.values()) if slot not in had])
        self._forget_models(before)

    def converge(self, desired: Desired, tls: Tls | None) -> None:
        """Moves reality to a state, in an order in which no request meets a server that is not ready.

        Servers, then clusters, then weights; and backwards for what is not wanted: weights, requests in
        flight, clusters, servers.

        Args:
            tls: the certificates of the endpoint. Whoever writes a state down reads them before: one that can not be
                reached for want of a file would be told as what is.
        """
        if not desired.versions:
            self._router.stop(drain_s=self._settings.drain_s)
            self._servers.stop_except([])
            self._forget_models(desired)
            return
        ports, failures = self._servers.ensure(list(desired.versions.values()))
        if desired.live in failures and desired.live not in ports:
            # The routes stay as they are: whatever serves now goes on serving.
            raise failures[desired.live]
        settings = RouterSettings(
            host=self._endpoint.host,
            port=desired.port,
            request_timeout_s=self._settings.request_timeout_s,
            tls=tls,
            sticky_header=self._endpoint.sticky_header,
            sticky_cookie=self._endpoint.sticky_cookie,
        )
        # The live version goes on with the servers it has; a canary is judged with all of its own, or not at all.
        canary = desired.canary if desired.canary in ports and desired.canary not in failures else None
        if canary and desired.mirror is not None:
            # Kept when the mirror ends: its counters are that cluster's.
            ports = {**ports, mirrored(canary): ports[canary]}
        self._router.converge(
            settings,
            ports,
            live=desired.live,
            canary=canary,
            share=desired.share if canary else 0.0,
            mirror=desired.mirror or 0.0,
        )
        for error in failures.values():
            # What is not wanted stays up until what is wanted is: a caller may want to go back to it.
            raise error
        self._router.forget_others(ports, drain_s=self._settings.drain_s)
        self._servers.stop_except(self._servers.slots(desired.versions.values()))
        self._forget_models(desired)

    def take(self, before: Desired, version: ModelVersion) -> DeployedVersion:
        """Copies a version's verified bytes to where its servers will look for them.

        Raises:
            InputError: they are not those of its digest.
        """
        deployed = DeployedVersion(
            name=version.name,
            version=version.version,
            digest=version.digest or digest_tree(version.path),
            python=version.python,
            generation=before.generation + 1,
        )
        copy_verified(version, deployed.digest, self._servers.model_path(deployed))
        return deployed

    def processes(self, desired: Desired) -> list[ProcessStatus]:
        """What is wanted, and whether it runs."""
        found = []
        for slot in self._servers.slots(desired.versions.values()):
            process = self._servers.process(slot)
            found.append(
                ProcessStatus(
                    role="server",
                    version=slot.deployed.version,
                    pid=process.pid if process else None,
                    port=self._servers.port(slot) if process else None,
                    alive=process is not None,
                    ready=process is not None and self._servers.ready(slot),
                )
            )
        if desired.versions:
            found.append(self._router.status(desired.port))
        return found

    def notices(self, desired: Desired, port: int) -> tuple[str, ...]:
        """What the configuration asks for, `port` among it (0: any), and is not in force."""
        if not desired.versions:
            return ()
        found = []
        if port not in (0, desired.port):
            found.append(f"it listens on port {desired.port}, and not on {port}: `mlcicd reload` moves it")
        slots = self._servers.slots(desired.versions.values())
        outdated = sorted({slot.deployed.version for slot in slots if self._servers.outdated(slot)})
        if outdated:
            which = f"version {', '.join(outdated)}"
            found.append(f"the servers of {which} were started with other settings: `mlcicd reload` renews them")
        try:
            self.certificates()
        except MlcicdError as error:
            found.append(f"{error.one_line()}: the endpoint keeps the certificates it has")
        return tuple(found)

    def wanted(self, desired: Desired) -> dict[Part, Process | None]:
        """The processes that should run; None for one that does not."""
        if not desired.versions:
            return {}
        slots = self._servers.slots(desired.versions.values())
        parts = [Part(f"server {s.replica + 1} of version {s.deployed.version}", s.deployed.version) for s in slots]
        servers = dict(zip(parts, map(self._servers.process, slots), strict=True))
        return {**servers, Part("the router", None): self._router.process()}

    def counters(self, desired: Desired) -> Mapping[str, Counters]:
        """What the router counted, by version.

        Raises:
            ServiceError: the router does not run.
        """
        return {
            deployed.version: self._router.counters(deployed.version, deployed.generation)
            for deployed in desired.versions.values()
        }

    def mirror_counters(self, desired: Desired) -> Mapping[str, Counters]:
        """What the router counted of the copies that went to the canary; empty when none ever did.

        Raises:
            ServiceError: the router does not run.
        """
        if desired.canary is None or desired.mirror is None:
            return {}
        generation = desired.versions[desired.canary].generation
        return {desired.canary: self._router.counters(mirrored(desired.canary), generation)}

    def failure(self, deployed: DeployedVersion) -> str:
        """What the version's model raises most often, from its servers' logs; empty when nothing is known."""
        return commonest_failure(self._servers.logs(deployed))

    def certificates(self) -> Tls | None:
        """Those of the configuration; None where the endpoint has none.

        Raises:
            ConfigError, InputError: they can not be read, or are none.
        """
        tls = self._endpoint.tls
        if tls is None:
            return None
        return self._router.tls() if tls == KEPT_TLS else read_tls(tls)

    def certificates_in_force(self) -> Tls | None:
        """Those that the router was given last; None where it has none."""
        return self._router.tls()

    def certificates_at_hand(self) -> Tls | None:
        """Those of the configuration, or where they can not be read, those in force: a way back to what served well
        depends on no file. :meth:`notices` says so."""
        try:
            return self.certificates()
        except MlcicdError:
            return self.certificates_in_force()

    def _forget_models(self, desired: Desired) -> None:
        kept = {self._servers.model_path(deployed) for deployed in desired.versions.values()}
        for model in self._folder.models.iterdir():
            if model not in kept:
                shutil.rmtree(model)

    def own_url(self, desired: Desired, version: str) -> str:
        """The address of a version's own first server.

        Raises:
            ServiceError: it has just ended.
        """
        port = self._servers.port(self._servers.slots([desired.versions[version]])[0])
        if port is None:
            raise ServiceError(f"the server of version {version} has just ended", where=self._environment)
        return f"http://127.0.0.1:{port}"

    def url(self, desired: Desired) -> str:
        """The address of the router; empty where it has none yet."""
        host = f"[{self._endpoint.host}]" if ":" in self._endpoint.host else self._endpoint.host
        scheme = "http" if self._endpoint.tls is None else "https"
        return f"{scheme}://{host}:{desired.port}" if desired.port else ""
