"""`cutover up`: everything on one machine, in the foreground, and stopped as it has to be."""

import asyncio
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest

from services.console.state_directory import locked, place
from shared.bus.server import nats_server
from tests.acceptance.console.whole import gone, is_running, make_devices, up
from tests.support.terminal import CTRL_C, cutover, on_terminal, started

SERVICES = ("nats", "fault_recording", "state_control", "startup", "write_cloning")
DONE, FAILED, USAGE = 0, 1, 2


async def test_every_command_leads_a_volume_to_its_target(short_path: Path) -> None:
    source, target = make_devices(short_path)
    async with up(short_path / "state", "--allow", str(short_path)) as running:
        setup = await running.done("setup", "vol1", "--source", str(source), "--target", str(target))
        assert setup["export_uri"].startswith("nbd+unix:///vol1?socket=")
        assert [each["name"] for each in await running.done("list")] == ["vol1"]
        await running.done("throttle", "vol1", "1MiB/s")
        await running.done("sync", "vol1")
        await running.done("pause", "vol1")
        assert (await running.done("query", "vol1"))["paused"]
        await running.done("throttle", "vol1", "off")
        await running.done("resume", "vol1")
        await running.done("wait", "vol1", "source-selected", "--timeout", "30")
        for verb, state in (("select-target", "target-selected"), ("select-source", "source-selected")):
            assert (await running.done(verb, "vol1"))["state"] == state
        await running.done("select-target", "vol1")
        assert (await running.done("commit", "vol1", "--yes"))["state"] == "committed"
        assert await running.done("faults", "vol1") == []
        await running.done("cleanup", "vol1", "--yes")
        assert await running.done("list") == []
        assert (await running.stop()).status == DONE
    assert source.read_bytes() == target.read_bytes()


async def test_abort_leads_back_to_setup(short_path: Path) -> None:
    source, target = make_devices(short_path)
    async with up(short_path / "state", "--allow", str(short_path)) as running:
        await running.done("setup", "vol1", "--source", str(source), "--target", str(target))
        await running.done("sync", "vol1")
        assert (await running.done("abort", "vol1", "--yes"))["state"] == "setup"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signal_stops_everything_cleanly(short_path: Path, number: signal.Signals) -> None:
    async with up(short_path / "state") as running:
        pids = [running.pid_of(service) for service in SERVICES]
        ended = await running.stop(number)
    assert ended.status == DONE, ended
    assert "Stopped cleanly." in ended.stderr
    assert not any(map(is_running, pids))
    assert not (short_path / "state" / "up.json").exists()


async def test_ctrl_c_on_a_terminal_reaches_the_services_through_up_alone(short_path: Path) -> None:
    """The terminal signals its whole foreground group; services that heard it would all stop at once."""
    async with on_terminal(
        "up", "--no-monitoring", "--state-dir", str(short_path / "state"), "--port", "0"
    ) as terminal:
        await terminal.until("Ctrl-C stops it cleanly")
        terminal.type(CTRL_C)
        await terminal.until("Stopped cleanly.")
        assert await terminal.end() == DONE
    assert "stops on SIGINT" not in terminal.shown
    assert terminal.shown.count("stops on SIGTERM") == len(SERVICES) - 1


async def test_page_is_served_last_and_stops_first(short_path: Path) -> None:
    async with up(short_path / "state", monitoring=True) as running:
        page = running.ready["page"]
        assert page.startswith("http://127.0.0.1:")
        assert "<title>Cutover</title>" in await served_at(page)
        ended = await running.stop()
    assert ended.status == DONE, ended
    stops = [line for line in ended.stderr.splitlines() if " stops on " in line]
    assert "services.monitoring" in stops[0]


async def test_no_program_of_the_folder_that_it_is_called_in_is_run(short_path: Path) -> None:
    """Whoever may write that folder would have root run it.

    Cause: `python -m` looks for modules in the working directory first. Failing: `orjson.py` there is run in place of the
    package, and no service starts. Passing: nobody looks at it.
    """
    folder = short_path / "anybody-s"
    folder.mkdir()
    (folder / "orjson.py").write_text("open(__file__ + '.was-run', 'w').close()\n")
    async with up(short_path / "state", monitoring=True, folder=folder) as running:
        await served_at(running.ready["page"])
        assert (await running.stop()).status == DONE
    assert [each.name for each in folder.iterdir()] == ["orjson.py"]


async def test_nothing_is_hurt_by_a_page_that_cannot_be_served(short_path: Path) -> None:
    """Its service ends again and again; volumes, commands and the clean stop do not mind."""
    source, target = make_devices(short_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        allow = ("--allow", str(short_path))
        state = short_path / "state"
        async with up(state, *allow, monitoring=True, CUTOVER_MONITORING_LISTEN=address) as running:
            assert running.process.stderr is not None
            async with asyncio.timeout(30):
                while "monitoring ended" not in (await running.process.stderr.readline()).decode():
                    pass
            await running.done("setup", "vol1", "--source", str(source), "--target", str(target))
            await running.done("sync", "vol1")
            assert (await running.stop()).status == DONE


async def served_at(url: str) -> str:
    """What is served there, once it is: the page's service is waited for by nobody."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
            except urllib.error.URLError:
                await asyncio.sleep(0.05)


async def test_volumes_are_stopped_first_and_nats_last(short_path: Path) -> None:
    async with up(short_path / "state") as running:
        ended = await running.stop()
    stops = [
        line.split(" stops on ")[0].rpartition(" ")[2]
        for line in ended.stderr.splitlines()
        if " stops on " in line
    ]
    assert stops == [f"services.{service}" for service in reversed(SERVICES[1:])]


async def test_second_signal_does_not_cut_the_stop_short(short_path: Path) -> None:
    async with up(short_path / "state") as running:
        running.process.send_signal(signal.SIGINT)
        ended = await running.stop(signal.SIGINT)
    assert ended.status == DONE, ended


async def test_migration_goes_on_after_a_clean_stop(short_path: Path) -> None:
    source, target = make_devices(short_path)
    state = short_path / "state"
    async with up(state, "--allow", str(short_path)) as running:
        await running.done("setup", "vol1", "--source", str(source), "--target", str(target))
        await running.done("sync", "vol1")
        await running.done("wait", "vol1", "source-selected", "--timeout", "30")
        assert (await running.stop()).status == DONE
    async with up(state, "--allow", str(short_path)) as running:
        status = await running.done("query", "vol1")
        assert (status["state"], status["attempt"], status["faults"]) == ("source-selected", 1, [])


@pytest.mark.parametrize("service", SERVICES)
async def test_child_that_dies_is_started_again(short_path: Path, service: str) -> None:
    async with up(short_path / "state") as running:
        before = running.pid_of(service)
        os.kill(before, signal.SIGKILL)
        assert running.process.stderr is not None
        async with asyncio.timeout(30):
            while f"{service} runs again" not in (await running.process.stderr.readline()).decode():
                pass
            assert running.pid_of(service) != before
            while (await running.cutover("list")).status != DONE:
                pass


async def test_unclean_stop_is_told_by_the_exit_status(short_path: Path) -> None:
    """write_cloning is stopped with SIGKILL at the moment when it would be asked to stop cleanly."""
    async with up(short_path / "state") as running:
        cloning = running.pid_of("write_cloning")
        os.kill(cloning, signal.SIGSTOP)  # it will not be restarted, and can answer nothing
        running.process.send_signal(signal.SIGTERM)
        os.kill(cloning, signal.SIGKILL)
        async with asyncio.timeout(60):
            _, stderr = await running.process.communicate()
    assert running.process.returncode == FAILED
    assert "not cleanly" in stderr.decode()


async def test_second_up_on_the_same_state_is_refused(short_path: Path) -> None:
    state = short_path / "state"
    async with up(state) as running:
        ended = await cutover("up", "--json", "--state-dir", str(state))
        assert (ended.status, ended.json["error"]["code"]) == (FAILED, "already-running")
        assert str(running.process.pid) in ended.json["error"]["message"]
        assert (await running.cutover("list")).status == DONE


async def test_services_left_behind_keep_a_second_up_out(short_path: Path) -> None:
    state = short_path / "state"
    async with up(state) as running:
        pids = {service: running.pid_of(service) for service in SERVICES}
        running.process.kill()
        await running.process.wait()
        ended = await cutover("up", "--json", "--state-dir", str(state))
        assert ended.json["error"]["code"] == "already-running"
        assert f"write_cloning {pids['write_cloning']}" in ended.json["error"]["message"]
        for service in reversed(SERVICES):
            os.kill(pids[service], signal.SIGTERM)
            await gone(pids[service])
    async with up(state):
        pass


async def test_nothing_is_allowed_by_default_and_the_refusal_names_the_setting(short_path: Path) -> None:
    source, target = make_devices(short_path)
    async with up(short_path / "state") as running:
        error = await running.refused("setup", "vol1", "--source", str(source), "--target", str(target))
    assert error["code"] == "device-not-allowed"
    assert "allowed_devices" in error["message"]


async def test_link_may_be_allowed_by_its_own_name(short_path: Path) -> None:
    source, target = make_devices(short_path)
    link = short_path / "by-name"
    link.symlink_to(source)
    async with up(short_path / "state", "--allow", str(link), "--allow", str(target)) as running:
        await running.done("setup", "vol1", "--source", str(link), "--target", str(target))


async def test_nats_of_the_operator_is_used(short_path: Path) -> None:
    async with nats_server(short_path / "nats") as nats:
        config = short_path / "cutover.toml"
        config.write_text(
            f'[nats]\nurl = "{nats.url}"\nmonitor_url = "{nats.monitor_url}"\n[host]\nname = "h7"\n'
            f'state_dir = "{short_path}/host"\n'
        )
        async with up(short_path / "state", "--config", str(config)) as running:
            assert running.url == nats.url
            assert running.ready["host"] == "h7"
            assert await running.done("list") == []
            assert (await running.stop()).status == DONE
        async with up(short_path / "state", server=nats.url) as running:
            assert running.url == nats.url


async def test_another_host_of_the_same_name_is_told_and_not_taken_for_ours(short_path: Path) -> None:
    """On a shared NATS server it answers for the name, so the second `up` would seem to be ready and serve nothing."""
    async with nats_server(short_path / "nats") as nats:
        config = short_path / "cutover.toml"
        config.write_text(
            f'[nats]\nurl = "{nats.url}"\nmonitor_url = "{nats.monitor_url}"\n[host]\nname = "vm"\n'
        )
        async with up(short_path / "one", "--config", str(config)):
            other = ("up", "--json", "--state-dir", str(short_path / "two"), "--config", str(config))
            ended = await cutover(*other)
            assert (ended.status, ended.json["error"]["code"]) == (FAILED, "host-taken"), ended
            assert "host 'vm' (run 1)" in ended.json["error"]["message"]
            assert "host.name" in ended.json["error"]["message"]
            assert not (short_path / "two" / "up.json").exists()
        async with up(short_path / "two", "--config", str(config)) as second:
            assert second.ready["host"] == "vm"


async def test_socket_that_the_host_cannot_have_ends_up_with_a_sentence(short_path: Path) -> None:
    """Only the service can tell; it is not started again and again, and it shows no traceback."""
    taken = short_path / "taken"
    taken.write_text("precious")
    line = ("up", "--json", "--state-dir", str(short_path / "state"))
    async with started(*line, CUTOVER_NBD_LISTEN=f"unix://{taken}") as process:
        async with asyncio.timeout(60):
            stdout, stderr = (each.decode() for each in await process.communicate())
    assert (process.returncode, orjson.loads(stdout)["error"]["code"]) == (FAILED, "not-started")
    assert f"nbd.listen: unix://{taken} cannot be listened on" in stderr
    assert "Traceback" not in stderr
    assert "starting it again" not in stderr
    assert taken.read_text() == "precious"


async def test_nats_that_is_away_is_told(short_path: Path) -> None:
    ended = await cutover(
        "up", "--json", "--state-dir", str(short_path / "state"), server="nats://127.0.0.1:9"
    )
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "journal-away")
    assert (
        "CUTOVER_NATS_URL names it" in ended.json["error"]["message"]
    )  # and not that `cutover up` would start one


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host]\nnam = 'x'\n", "host.nam: unknown field"),
        ("[host\n", "not TOML"),
        ("loose = 1\n", "no section"),
        ("[host]\nio_timeout_s = -1\n[nats]\nurl = 'http://x'\n", "host.io_timeout_s"),
        ("[nbd]\nlisten = ['tcp://0.0.0.0:10809']\n", "tcp://0.0.0.0:10809 would be open to everyone"),
        ("[nbd]\nlisten = ['unix:///no-folder/x.sock']\n", "nbd.listen: unix:///no-folder/x.sock cannot"),
        (None, "cannot be read"),
    ],
)
async def test_wrong_configuration_is_told_by_its_own_name_before_anything_is_made(
    short_path: Path, text: str | None, words: str
) -> None:
    config, state = short_path / "cutover.toml", short_path / "state"
    if text is not None:
        config.write_text(text)
    ended = await cutover("up", "--json", "--config", str(config), "--state-dir", str(state))
    assert (ended.status, ended.json["error"]["code"]) == (USAGE, "usage")
    message = ended.json["error"]["message"]
    assert words in message
    assert "\n" not in message
    if not words.startswith("nbd.listen: "):
        assert str(config) in message
    assert not state.exists()


async def test_port_that_is_taken_is_told(short_path: Path) -> None:
    async with nats_server(short_path / "nats") as nats:
        port = nats.url.rpartition(":")[2]
        ended = await cutover("up", "--json", "--port", port, "--state-dir", str(short_path / "state"))
        assert (ended.status, ended.json["error"]["code"]) == (FAILED, "port-taken")


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.1, 0.2, 0.4, 0.8])
async def test_signal_while_starting_leaves_nothing(short_path: Path, delay_s: float) -> None:
    """Whatever it is doing when the signal comes: making streams, starting a service, waiting for one."""
    state = short_path / "state"
    async with started("up", "--state-dir", str(state), "--port", "0") as process:
        async with asyncio.timeout(40):
            while not (state / "up.json").exists():  # noqa: ASYNC110 - a file makes no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(delay_s)
            process.send_signal(signal.SIGTERM)
            _, stderr = await process.communicate()
        assert process.returncode in {DONE, FAILED}, stderr
    assert not (state / "up.json").exists()
    with locked(place(state)):  # free: nothing that held it was left behind
        pass


async def test_state_directory_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    ended = await cutover("up", "--json", "--state-dir", str(tmp_path / ("x" * 100)))
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "state-directory")
