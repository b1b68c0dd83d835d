"""The life of the write cloning service: what is opened in which order, and closed in the reverse.

Lock and run number, the socket that tells how it is, bus, devices' engine, export server, admission, volumes, commands; and
at the end: no more commands, no more application I/O, flushes, faults and the clear of the flag, clients, devices, bus.
"""

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.engines import choose_engine
from services.write_cloning.endpoints import Waiting, endpoints_of
from services.write_cloning.export.server import ExportServer
from services.write_cloning.export.tls import Tls
from services.write_cloning.host import Host
from services.write_cloning.journal_watch import watch_journal
from services.write_cloning.listening import check_places, open_listeners, tls_of
from services.write_cloning.local_status import LocalTelling, telling_locally
from services.write_cloning.map_files import MapDirectory, MapFiles
from services.write_cloning.offering import Offering
from services.write_cloning.opener import ConfiguredOpener
from services.write_cloning.openings import Openings
from services.write_cloning.progress import tell_progress
from services.write_cloning.run_number import locked, next_run, refuse_earlier_state
from services.write_cloning.storage import Directory
from services.write_cloning.surroundings import Limits, Surroundings, random_token
from services.write_cloning.witness import Witnesses
from shared.bus.chain import ChainJournal
from shared.bus.connection import Bus, connect
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import ServiceDescription
from shared.bus.jetstream import JetStreamStream
from shared.clock import SystemClock
from shared.config.load import ConfigError
from shared.config.model import Config, HostConfig
from shared.earlier_state import WITNESSES
from shared.logs.about import PROCESS
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.local import local_socket
from shared.migration.refusals import Code, Refusal
from shared.process import EXIT_DONE, EXIT_FAILED
from shared.stopping import StoppedError
from shared.supervision.supervisor import supervisor

log = logging.getLogger(__name__)

RETRY_S = 0.5
SOCKET_NAME = "nbd.sock"

# Refusals of an admission that is asked for again. What is too large for NATS as it is set up may be carried once that is mended;
# a process that ended would do no better at its next start.
_WAITED_OUT = frozenset({Code.SERVICE_AWAY, Code.JOURNAL_AWAY, Code.BUSY, Code.TOO_LARGE})


async def serve(config: Config, stop: asyncio.Event) -> int:
    """Serve until `stop`; returns the exit status.

    Raises:
        ConfigError: the state directory, a file for TLS, or where volumes shall be exported, cannot be used; startup knows
            the directory for an old copy.
        Refusal: the configuration or the state directory does not allow to begin.
    """
    if config.host is None:
        raise Refusal(Code.BAD_REQUEST, "The configuration has no [host] section.")
    state_dir = Path(config.host.state_dir)
    refuse_earlier_state(state_dir, config.host.name)
    with tls_of(config.nbd, SystemClock()) as tls, locked(state_dir):
        check_places(config.nbd)
        directory = Directory(state_dir)
        await Openings(directory).require_readable()
        run = await next_run(directory)
        PROCESS.host, PROCESS.run = config.host.name, run
        log.info("run %d of host %s begins", run, config.host.name)
        telling = LocalTelling(host_name=config.host.name, run=run, clock=SystemClock())
        async with (
            telling_locally(local_socket(state_dir), telling.as_bytes),
            _bus(config, stop) as bus,
            _engine(config.host) as engine,
        ):
            telling.bus = bus
            return await _serve_host(config, config.host, telling, bus, engine, tls, stop)


async def _serve_host(
    config: Config,
    host_config: HostConfig,
    telling: LocalTelling,
    bus: Bus,
    engine: Engine,
    tls: Tls | None,
    stop: asyncio.Event,
) -> int:
    clock = SystemClock()
    _allow_descriptors()
    listeners = open_listeners(config.nbd, Path(host_config.state_dir) / SOCKET_NAME)
    first = listeners[0]
    is_clean: bool | None = None  # None: nothing was opened
    try:
        async with ExportServer(clock) as exports, asyncio.TaskGroup() as tasks:
            around = Surroundings(
                host=host_config.name,
                run=telling.run,
                clock=clock,
                tasks=tasks,
                witnesses=_witnesses(Path(host_config.state_dir)),
                journal=ChainJournal(JetStreamStream(bus)),
                requests=bus,
                opener=ConfiguredOpener(host_config, engine),
                exports=Offering(
                    exports,
                    first.reachable_address,
                    host_config.inflight_budget_bytes,
                    has_tls=tls is not None and first.is_tcp,
                ),
                limits=_limits(host_config),
                life=random_token(),
                maps=_maps(host_config),
            )
            host = Host(around)
            PROCESS.whereabouts, telling.host = host.whereabouts, host
            async with _saying_what_it_waits_for(bus, waiting := Waiting(around.host, around.run)):
                is_admitted = await _admitted(host, waiting, stop)
            if not is_admitted:
                raise StoppedError
            for listener in listeners:
                exports.listen(listener, tls if listener.is_tcp else None)
            progress = tasks.create_task(tell_progress(host, bus), name="progress")
            vigil = tasks.create_task(watch_journal(host), name="watch the journal")
            service = ServiceDescription(
                name=HOST_SERVICE_NAME,
                description=f"The data path of host {host_config.name}",
                metadata={
                    "host": host_config.name,
                    "run": str(telling.run),
                    "pid": str(os.getpid()),
                    "life": around.life,
                    "io_engine": engine.name,
                },
            )
            async with NatsEndpoints(bus).serve(service, endpoints_of(host, host_config.name)):
                addresses = " and ".join(each.address for each in listeners)
                log.info("host %s serves %s", host_config.name, addresses)
                # Ready also while NATS is away: applications are served then, and whoever restarted it would close their volumes.
                supervisor.ready(f"Host {host_config.name} serves {addresses}.")
                await stop.wait()
            progress.cancel()  # what is being closed makes none
            vigil.cancel()
            exports.begin_shutdown()
            is_clean = await _stop_cleanly(host, exports, host_config.shutdown_timeout_s)
            raise StoppedError  # ends the task group
    except* StoppedError:
        pass
    if is_clean is None:
        log.info("the stop came before the admission: nothing was opened")
        return EXIT_DONE
    if not is_clean:
        log.error("the stop was not clean: the error flag stays set")
        return EXIT_FAILED
    log.info("the stop was clean")
    return EXIT_DONE


def _witnesses(state_dir: Path) -> Witnesses:
    return Witnesses(Directory(state_dir / WITNESSES), Openings(Directory(state_dir)))


def _maps(config: HostConfig) -> MapFiles | None:
    """Where region maps are kept; nowhere if they are turned off, or there is no place for them: then resyncs are full."""
    path = Path(config.state_dir) / "maps"
    if not config.region_map:
        return None
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        log.warning("no region maps are kept: %s: %s", path, error.strerror)
        return None
    return MapDirectory(path)


def _allow_descriptors() -> None:
    """As many as we may: the usual limit is for programs that use select(2), and the clients of few volumes would reach it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _stop_cleanly(host: Host, exports: ExportServer, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            is_clean = await host.stop()
            await exports.close()
            await host.release()
    except TimeoutError:
        waiting = ", ".join(host.busy_devices()) or "none"
        log.error("the stop took longer than %g s; devices with requests out: %s", timeout_s, waiting)  # noqa: TRY400 - the code is not wrong
        return False
    return is_clean


def _saying_what_it_waits_for(bus: Bus, waiting: Waiting) -> AbstractAsyncContextManager[None]:
    """For whoever asks before the admission. Discovery does not find it: it would count as a host that serves."""
    service = ServiceDescription(name=HOST_SERVICE_NAME, description="A host that is not admitted yet")
    return NatsEndpoints(bus).answer_unfound(service, [waiting.endpoint()])


async def _admitted(host: Host, waiting: Waiting, stop: asyncio.Event) -> bool:
    """Ask for admission until there is an answer: no volume opens before (rule R1). False where the stop comes first.

    Raises:
        ConfigError: the state directory is a new one, or an old copy: another start would find no other, so none is to follow.
        Refusal: any other refusal that waiting does not mend; what is behind it may be mended meanwhile.
    """
    while not stop.is_set():
        try:
            await host.admit()
        except Refusal as refusal:
            if refusal.code is Code.STALE:
                raise ConfigError(f"host.state_dir: {refusal.message}") from refusal
            if refusal.code not in _WAITED_OUT:
                raise
            if refusal.message != waiting.why:
                log.warning("not admitted yet: %s", refusal.message)
                supervisor.status(f"Not admitted yet: {refusal.message}")
                waiting.why = refusal.message
        else:
            return True
        await _pause(stop)
    return False


@asynccontextmanager
async def _bus(config: Config, stop: asyncio.Event) -> AsyncIterator[Bus]:
    """The connection to NATS; waits for a server that is not there yet."""
    bus = None
    while bus is None:
        try:
            bus = await connect(config.nats, name="write_cloning", clock=SystemClock(), stop=stop)
        except Refusal as refusal:
            if refusal.code is Code.NOT_PERMITTED:
                raise
            log.warning("waiting for NATS: %s", refusal.message)
            supervisor.status(f"Waiting for NATS: {refusal.message}")
            await _pause(stop)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def _engine(config: HostConfig) -> AsyncIterator[Engine]:
    choice = choose_engine(allow_io_uring=config.io_engine != "threads")
    if choice.why_not_io_uring:
        if config.io_engine == "io_uring":
            raise Refusal(Code.BAD_REQUEST, f"host.io_engine is io_uring: {choice.why_not_io_uring}")
        log.warning("device I/O is done by threads: %s", choice.why_not_io_uring)
    try:
        yield choice.engine
    finally:
        if count := choice.engine.lanes_open:
            # Their requests are the kernel's, and their locks are kept until it has done them (rule R6).
            log.warning(
                "%d devices are locked until the kernel has done their last requests: so is this process",
                count,
            )
        else:
            await choice.engine.close()


def _limits(config: HostConfig) -> Limits:
    return Limits(
        io_timeout_s=config.io_timeout_s,
        target_flush_interval_s=config.target_flush_interval_s,
        region_size_bytes=config.region_size_bytes,
    )


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(RETRY_S):
            await stop.wait()
    except TimeoutError:
        return
