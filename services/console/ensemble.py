"""NATS and all services on this machine: started in order, kept alive, stopped in the order that keeps data safe.

write_cloning is stopped first, while everyone whom its clean shutdown needs is still there, and NATS last.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from services.console.children import Child, ChildError, ChildPlan
from services.console.failures import ConsoleError
from services.console.local_nats import LOOPBACK, any_port, choose_port, is_free, server_command
from services.console.services_config import (
    Document,
    check_document,
    filled_in,
    names_nats,
    read_document,
    write_config,
)
from services.console.speaking import speaking
from services.console.state_directory import StateDirectory, locked, place, prepare
from shared.bus.bootstrap import bootstrap, ensure_progress
from shared.bus.connection import Bus, connect, heeding_cancellation
from shared.clock import SystemClock
from shared.config.model import Config, HostConfig, MonitoringConfig
from shared.messages.host import HOST_SERVICE_NAME
from shared.migration.refusals import Code, Refusal

# In the order of their start; all but NATS are stopped in the opposite order.
RECORDING, CONTROL, STARTUP, CLONING = "fault_recording", "state_control", "startup", "write_cloning"
SERVICES = (RECORDING, CONTROL, STARTUP, CLONING)
MONITORING = "monitoring"  # comes last, where it is wanted; whatever becomes of it, the others go on

READY_TIMEOUT_S = 60.0
READY_CHECK_S = 0.05
CONNECT_TIMEOUT_S = 4.0
DISCOVERY_TIMEOUT_S = 0.3  # for all hosts to make themselves known
STOP_PATIENCE_S = 20.0
USUAL_PAGE = MonitoringConfig().listen
CLONING_STOP_MARGIN_S = 10.0  # beyond `host.shutdown_timeout_s`, which write_cloning keeps itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator asked for."""

    state_dir: Path
    config_file: Path | None = None
    allow: tuple[str, ...] = ()
    port: int | None = None
    logs_to_files: bool = False  # else the services speak on our standard error
    monitoring: bool = False  # the page, too


class Ensemble:
    """The running whole. Made by `running`."""

    def __init__(
        self, directory: StateDirectory, config: Config, host: HostConfig, tell: Callable[[str], None]
    ) -> None:
        """Nothing runs yet."""
        self.directory = directory
        self.config = config
        self.host = host
        self.children: dict[str, Child] = {}
        self.stopped_cleanly = True
        self.tell = tell

    @property
    def page_url(self) -> str | None:
        """Where the page is; None where it does not run."""
        child = self.children.get(MONITORING)
        return (
            f"http://{self.config.monitoring.listen}/"
            if child is not None and child.pid is not None
            else None
        )

    @property
    def export_addresses(self) -> tuple[str, ...]:
        """Where volumes are exported."""
        return self.config.nbd.listen

    async def start(self, plan: ChildPlan) -> Child:
        """Start one child and remember it for the stop."""
        child = Child(plan, self._told)
        await child.start()
        self.children[plan.name] = child
        self._write_running()
        return child

    def _told(self, sentence: str) -> None:
        self._write_running()
        self.tell(sentence)

    def _write_running(self) -> None:
        running: dict[str, object] = {
            "pid": os.getpid(),
            "nats_url": self.config.nats.shown_url,
            "export": list(self.export_addresses),
            "services": {name: child.pid for name, child in self.children.items()},
        }
        if self.page_url is not None:
            running["page"] = self.page_url
        # Whole at every moment: others read it while services come and go.
        written = self.directory.running.with_suffix(".new")
        written.write_bytes(orjson.dumps(running, option=orjson.OPT_INDENT_2))
        written.replace(self.directory.running)

    async def keep(self) -> None:
        """Keep every child alive until it is stopped."""
        async with asyncio.TaskGroup() as keepers:
            for child in self.children.values():
                keepers.create_task(child.keep())

    async def stop(self) -> None:
        """Stop every child, the last started first. Each has its own patience, so this ends."""
        while self.children:
            _, child = self.children.popitem()
            is_clean = await child.stop()
            self.stopped_cleanly = self.stopped_cleanly and (is_clean or child.plan.name == MONITORING)
        self.directory.running.unlink(missing_ok=True)


@asynccontextmanager
async def running(wish: Wish, tell: Callable[[str], None]) -> AsyncIterator[Ensemble]:
    """Everything up and ready for as long as the context is open, and stopped in order on leaving it.

    Raises:
        ConsoleError: the state directory is taken, the configuration is wrong, or something does not start.
        Refusal: the NATS server that the operator named is away, or its streams are not as they have to be.
    """
    directory = place(wish.state_dir)
    document = filled_in(read_document(wish.config_file), directory, wish.allow)
    check_document(document, wish.config_file, directory, os.environ)
    prepare(directory)
    with locked(directory) as lock:
        ports: tuple[int, int] | None = None
        if not names_nats(document, os.environ):
            ports = choose_port(wish.port, _last_port(directory)), any_port()
            document["nats"] = _own_nats(document, *ports)
        if wish.monitoring:
            document["monitoring"] = {"listen": _page_address()} | document.get("monitoring", {})
        config = write_config(document, directory, os.environ)
        if config.host is None:
            raise ConsoleError("usage", "The configuration names no host.")
        with speaking(config.log, config.host, tell) as tell_more:
            ensemble = Ensemble(directory, config, config.host, tell_more)
            try:
                if ports is not None:
                    await ensemble.start(_nats_plan(ensemble, *ports, lock))
                await _start_services(ensemble, _service_plans(ensemble, wish, lock))
                if wish.monitoring:
                    await _start_monitoring(ensemble, _plan_of(MONITORING, ensemble, wish, lock))
                async with _kept(ensemble):
                    yield ensemble
            except ChildError as error:
                raise ConsoleError("not-started", str(error)) from error
            finally:
                await ensemble.stop()


@asynccontextmanager
async def _kept(ensemble: Ensemble) -> AsyncIterator[None]:
    """Keep the children alive meanwhile. What the body raises leaves as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ensemble.keep())
            progress = group.create_task(_keep_progress(ensemble))
            try:
                yield
            finally:
                progress.cancel()
                await ensemble.stop()
    except BaseExceptionGroup as several:
        if len(several.exceptions) == 1:
            raise several.exceptions[0] from None
        raise


async def _keep_progress(ensemble: Ensemble) -> None:
    """Make the stream of progress again whenever a NATS server is back that has lost it. Endless."""
    is_back = asyncio.Event()
    bus = await _connected(ensemble)
    bus.on_reconnect(is_back.set)
    try:
        while True:
            await is_back.wait()
            is_back.clear()
            with heeding_cancellation():
                try:
                    await ensure_progress(bus)
                except Refusal as refusal:  # or the server has gone again, and comes back again
                    ensemble.tell(refusal.message)
    finally:
        await bus.close()


def _own_nats(document: Document, port: int, monitor_port: int) -> dict[str, object]:
    ours = {"url": f"nats://{LOOPBACK}:{port}", "monitor_url": f"http://{LOOPBACK}:{monitor_port}"}
    return document.get("nats", {}) | ours


def _last_port(directory: StateDirectory) -> int | None:
    """The port in the configuration of last time, so that whoever knows it finds us again."""
    try:
        url = str(read_document(directory.config)["nats"]["url"])
        return int(url.rpartition(":")[2])
    except (ConsoleError, KeyError, ValueError):
        return None


def _nats_plan(ensemble: Ensemble, port: int, monitor_port: int, lock: int) -> ChildPlan:
    return ChildPlan(
        name="nats",
        command=server_command(ensemble.directory.nats, port, monitor_port),
        environment=os.environ,
        stop_patience_s=STOP_PATIENCE_S,
        log=ensemble.directory.log_of("nats"),  # it says much, and nothing that an operator waits for
        held_open=(lock,),
    )


def _service_plans(ensemble: Ensemble, wish: Wish, lock: int) -> list[ChildPlan]:
    return [_plan_of(service, ensemble, wish, lock) for service in SERVICES]


def _plan_of(service: str, ensemble: Ensemble, wish: Wish, lock: int) -> ChildPlan:
    cloning_patience_s = ensemble.host.shutdown_timeout_s + CLONING_STOP_MARGIN_S
    return ChildPlan(
        name=service,
        command=(
            # -P: of the folder that we are called in, which others may write, no file is run.
            *(sys.executable, "-P", "-m", f"services.{service}"),
            *("--config", str(ensemble.directory.config)),
        ),
        environment=os.environ,
        stop_patience_s=cloning_patience_s if service == CLONING else STOP_PATIENCE_S,
        log=ensemble.directory.log_of(service) if wish.logs_to_files else None,
        held_open=() if service == MONITORING else (lock,),  # one that is left behind keeps nobody out
    )


def _page_address() -> str:
    """The usual one, or any where something else is there already: another `up`, perhaps."""
    return USUAL_PAGE if is_free(int(USUAL_PAGE.rpartition(":")[2])) else f"{LOOPBACK}:{any_port()}"


async def _start_monitoring(ensemble: Ensemble, plan: ChildPlan) -> None:
    """Start it, and wait for nobody: it serves its page when it can. One that does not start is told of, and that is all."""
    try:
        await ensemble.start(plan)
    except ChildError as error:
        ensemble.tell(str(error))


async def _start_services(ensemble: Ensemble, plans: list[ChildPlan]) -> None:
    with heeding_cancellation():  # or a Ctrl-C that comes while streams are made would be lost
        bus = await _connected(ensemble)
        try:
            await bootstrap(bus)
            await _serves_host(ensemble, bus, None)  # or ours would only wait to be admitted
            for plan in plans:
                await _until_ready(ensemble, bus, await ensemble.start(plan))
        finally:
            await bus.close()


async def _connected(ensemble: Ensemble) -> Bus:
    try:
        return await connect(
            ensemble.config.nats, name="cutover-up", clock=SystemClock(), timeout_s=CONNECT_TIMEOUT_S
        )
    except Refusal as refusal:
        nats = ensemble.children.get("nats")
        if nats is None:
            raise ConsoleError(
                refusal.code,
                f"{refusal.message} It is used because nats.url or CUTOVER_NATS_URL names it; where neither does, a server of "
                "our own is started.",
            ) from refusal
        if nats.pid is None:
            raise ChildError(
                f"The NATS server {await nats.ended()}; its log is {nats.plan.log}."
            ) from refusal
        raise


async def _until_ready(ensemble: Ensemble, bus: Bus, child: Child) -> None:
    """Return when the service answers.

    Raises:
        ChildError: it ended before that, or does not answer in time.
        ConsoleError: (`host-taken`) another serves our host.
    """
    log = f" Its log is {child.plan.log}." if child.plan.log is not None else ""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await _answers(ensemble, bus, child):
                how = await child.ended_within(READY_CHECK_S)
                if how is not None:
                    raise ChildError(f"{child.plan.name} {how} before it was ready.{log}")
    except TimeoutError:
        raise ChildError(f"{child.plan.name} was not ready within {READY_TIMEOUT_S:g} s.{log}") from None


async def _answers(ensemble: Ensemble, bus: Bus, child: Child) -> bool:
    # A service does not call when it is ready, so it is asked; while nobody serves the subject, NATS says so at once.
    if child.plan.name == CLONING:
        return await _serves_host(ensemble, bus, child)
    try:
        await bus.request_bytes(f"$SRV.PING.cutover-{child.plan.name.replace('_', '-')}", b"", timeout_s=1.0)
    except Refusal as refusal:
        if refusal.code is Code.SERVICE_AWAY:
            return False
        raise
    return True


async def _serves_host(ensemble: Ensemble, bus: Bus, ours: Child | None) -> bool:
    """Whether our own write_cloning serves our host. On a shared NATS server another may: that is no readiness of ours.

    Raises:
        ConsoleError: (`host-taken`) another serves it.
    """
    name, pid = ensemble.host.name, None if ours is None else str(ours.pid)
    found = await bus.instances(HOST_SERVICE_NAME, timeout_s=DISCOVERY_TIMEOUT_S)
    serving = [each.metadata for each in found if each.metadata.get("host") == name]
    others = [each.get("run") for each in serving if pid is None or each.get("pid") != pid]
    if others:
        raise ConsoleError(
            "host-taken",
            f"Another write_cloning serves host {name!r} (run {others[0]}) on {ensemble.config.nats.shown_url}: give this "
            "one another name with host.name in the configuration, or CUTOVER_HOST_NAME.",
        )
    return bool(serving)
