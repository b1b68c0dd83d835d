"""The services as processes of their own on a real NATS server: started, led through a life, killed, stopped."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from shared.bus.server import nats_server, server_config
from shared.messages.admission import AdmissionReply, AdmissionRequest, admission_subject
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    PlainRequest,
    SetupRequest,
    control_subject,
)
from shared.messages.status import MigrationStatus
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Trigger
from shared.migration.verdicts import Label
from tests.support.buses import NatsWiring, Wire, nats_wiring
from tests.support.scripted_host import ScriptedHost

SERVICES = {
    "services.fault_recording": "cutover-fault-recording",
    "services.state_control": "cutover-state-control",
    "services.startup": "cutover-startup",
}


async def start(module: str, wiring: NatsWiring, *arguments: str) -> Process:
    environment = {
        **os.environ,
        "CUTOVER_NATS_URL": wiring.url,
        "CUTOVER_NATS_MONITOR_URL": wiring.monitor_url,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=environment, stdout=PIPE, stderr=STDOUT
    )


async def stop(process: Process) -> tuple[int | None, str]:
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(15):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


@asynccontextmanager
async def service(module: str, wiring: NatsWiring, wire: Wire) -> AsyncIterator[Process]:
    """A service's process, once it can be found."""
    process = await start(module, wiring)
    try:
        async with asyncio.timeout(15):
            while not await wire.discovery.instances(SERVICES[module], timeout_s=0.2):
                assert process.returncode is None
        yield process
    finally:
        status, said = await stop(process)
        if status not in {0, -signal.SIGKILL}:
            print(said)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsWiring]:
    async with nats_wiring(tmp_path) as wiring:
        yield wiring


async def ask(wire: Wire, what: str, request: object | None = None) -> CommandReply:
    return await wire.requests.request(
        control_subject(what, "vol1"), request or PlainRequest(), CommandReply, timeout_s=15
    )


async def test_a_whole_life_a_crash_and_an_admission(nats: NatsWiring) -> None:
    async with nats.connect("t") as wire, AsyncExitStack() as stack:
        processes = {
            module: await stack.enter_async_context(service(module, nats, wire)) for module in SERVICES
        }
        host = ScriptedHost(wire.requests, wire.journal)
        async with wire.endpoints.serve(host.description(), host.endpoints()):
            reply = await ask(wire, "setup", SetupRequest(source="/a", target="/b"))
            assert (reply.state, reply.journal) == (State.SETUP, True)
            assert (await ask(wire, "sync")).state is State.SYNCING
            await host.move("vol1", Trigger.COPIED)
            assert (await ask(wire, "select-target")).state is State.TARGET_SELECTED

            # A service that dies is replaced by another one, which knows what the journal knows.
            processes["services.state_control"].kill()
            await processes["services.state_control"].wait()
            with pytest.raises(Refusal) as caught:
                await ask(wire, "commit")
            assert caught.value.code is Code.SERVICE_AWAY
            await stack.enter_async_context(service("services.state_control", nats, wire))
            status = await wire.requests.request(
                control_subject("query", "vol1"), PlainRequest(), MigrationStatus, timeout_s=10
            )
            assert (status.state, status.error_flag, status.warnings) == (State.TARGET_SELECTED, True, ())

        # The host has died without a clean stop.
        request = AdmissionRequest(host="h1", run=2, witnesses=tuple(host.witnesses.values()))
        admission = await wire.requests.request(
            admission_subject("h1"), request, AdmissionReply, timeout_s=15
        )
        assert [(each.label, each.state) for each in admission.admitted] == [(Label.UNCLEAN, State.SETUP)]
        host.run = 2
        host.adopt(admission.admitted[0])
        async with wire.endpoints.serve(host.description(), host.endpoints()):
            assert (await ask(wire, "sync")).attempt == 2
            assert (await ask(wire, "abort")).state is State.SETUP
            assert (await ask(wire, "cleanup", CleanupRequest())).state is None
        assert not (await wire.journal.read("vol1")).exists


@pytest.mark.parametrize("module", SERVICES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_stops_when_it_is_told(nats: NatsWiring, module: str, number: signal.Signals) -> None:
    async with nats.connect("t") as wire, service(module, nats, wire) as process:
        process.send_signal(number)
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_a_flag_is_not_set_on_a_server_that_does_not_sync(nats: NatsWiring, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    text = server_config(folder).replace("sync_interval: always", "")
    async with nats_server(folder, text=text) as server, AsyncExitStack() as stack:
        wiring = NatsWiring(server.url, server.monitor_url)
        bootstrap = await start("shared.bus.bootstrap", wiring)
        assert (await stop_by_itself(bootstrap))[0] == 0
        wire = await stack.enter_async_context(wiring.connect("t"))
        for module in SERVICES:
            await stack.enter_async_context(service(module, wiring, wire))
        host = ScriptedHost(wire.requests, wire.journal)
        async with wire.endpoints.serve(host.description(), host.endpoints()):
            await ask(wire, "setup", SetupRequest(source="/a", target="/b"))
            with pytest.raises(Refusal) as caught:
                await ask(wire, "sync")
        assert caught.value.code is Code.JOURNAL_UNSYNCED
        assert "accept_unsynced_journal" in caught.value.message
        assert len((await wire.journal.read("vol1")).entries) == 1


async def stop_by_itself(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(15):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_bootstrap_may_be_repeated(nats: NatsWiring) -> None:
    status, said = await stop_by_itself(await start("shared.bus.bootstrap", nats))
    assert status == 0
    assert "CUTOVER_JOURNAL" in said


@pytest.mark.parametrize("module", [*SERVICES, "shared.bus.bootstrap"])
async def test_a_server_that_is_away_is_said_and_ends_the_process(module: str) -> None:
    nowhere = NatsWiring("nats://127.0.0.1:9", "http://127.0.0.1:9")
    status, said = await stop_by_itself(await start(module, nowhere))
    assert status == 1
    assert "nats://127.0.0.1:9" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("module", SERVICES)
async def test_a_configuration_with_mistakes_is_told_whole(module: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[nats]\nurl = 7\nfoo = 1\n[host]\nname = "h"\n')
    nowhere = NatsWiring("nats://127.0.0.1:9", "ftp://x")
    status, said = await stop_by_itself(await start(module, nowhere, "--config", str(file)))
    assert status == 2
    for key in ("nats.foo", "nats.monitor_url", "host.state_dir"):
        assert key in said
    assert "Traceback" not in said


@pytest.mark.parametrize("where", ["a file", "/proc/x", "/sys/x"])
async def test_a_state_directory_that_cannot_be_used_is_told_in_a_sentence(
    where: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    state_dir = tmp_path / "file/state" if where == "a file" else Path(where)
    file = tmp_path / "c.toml"
    file.write_text(f'[host]\nname = "h1"\nstate_dir = "{state_dir}"\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.write_cloning", "--config", str(file), stdout=PIPE, stderr=STDOUT
    )
    status, said = await stop_by_itself(process)
    assert status == 2, said
    (line,) = said.splitlines()
    assert f"services.write_cloning stops: host.state_dir: {state_dir} cannot be used: " in line


async def test_of_two_state_controls_one_wins(nats: NatsWiring) -> None:
    """Replicas: whichever gets a request, the journal and the host keep two syncs apart."""
    async with nats.connect("t") as wire, AsyncExitStack() as stack:
        for module in (*SERVICES, "services.state_control"):
            await stack.enter_async_context(service(module, nats, wire))
        host = ScriptedHost(wire.requests, wire.journal)
        async with wire.endpoints.serve(host.description(), host.endpoints()):
            await ask(wire, "setup", SetupRequest(source="/a", target="/b"))
            for attempt in range(1, 4):
                results = await asyncio.gather(*(ask(wire, "sync") for _ in range(4)), return_exceptions=True)
                assert [each.state for each in results if isinstance(each, CommandReply)] == [State.SYNCING]
                assert all(isinstance(each, CommandReply | Refusal) for each in results)
                ledger = await wire.journal.read("vol1")
                assert ledger.broken is None
                assert (ledger.state, ledger.flag.value, ledger.attempt) == (State.SYNCING, "set", attempt)
                assert (await ask(wire, "abort")).state is State.SETUP
