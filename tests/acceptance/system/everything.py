"""A life in which everything happens once: all commands and kinds of record, faults, a kill, lost witnesses, another journal."""

import queue
import signal
from dataclasses import dataclass

from nats.aio.msg import Msg

from shared.messages.host import host_waiting_subject
from tests.acceptance.system.application import Application
from tests.acceptance.system.journal_store import made_again
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.whole_system import CLONING, HOST, SERVICES, System


@dataclass(frozen=True, slots=True)
class Lived:
    """What is left of it: all that passed on the bus, in order, and what the services said, by their names."""

    messages: tuple[Msg, ...]
    logs: dict[str, str]


def live(system: System) -> Lived:
    """Lead that life. Its services do not run afterwards."""
    with system.client.heard(">") as news:
        _whole_life(system)
        _killed(system)
        _closed_and_opened(system)
        _made_anew(system)
        messages = _all_of(news)
    for service in SERVICES:
        if service != CLONING:
            assert system.stop_service(service) == 0
    return Lived(messages, {service: system.log(service) for service in SERVICES})


def _whole_life(system: System) -> None:
    client, pair = system.client, make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    with Application(system.export("vol1"), blocks=256) as application:
        for command in ("query", "faults", "recover", "vouch", "pause", "sync"):
            client.command(command, "vol1")
        for subject in ("list", "faults"):
            client.ask(f"cutover.control.{subject}").accepted()
        client.refused("commit", "vol1")
        client.refused("query", "nobody")
        client.command("throttle", "vol1", bytes_per_s=1 << 30)
        client.command("resume", "vol1")
        client.until_state("vol1", "source-selected")
        for command in ("select-target", "select-source", "verify"):
            client.command(command, "vol1")
        client.until("vol1", lambda status: status["verified_at"], what="a comparison that is through")
        client.command("select-target", "vol1")
        application.until_operations(20)
        client.command("commit", "vol1", verified=True)
        client.until("vol1", lambda status: not status["error_flag"], what="a clear flag")
        application.stop()
    client.command("cleanup", "vol1", disconnect=True)


def _killed(system: System) -> None:
    client = system.client
    for name in ("vol2", "vol3", "vol4"):
        pair = make_pair(system)
        system.set_up(name, pair.source, pair.target)
        client.command("sync", name)
        client.until_state(name, "source-selected")
    client.command("abort", "vol4")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    client.command("sync", "vol3")
    client.until_state("vol3", "source-selected")


def _closed_and_opened(system: System) -> None:
    client = system.client
    assert system.stop_service(CLONING) == 0
    for name in ("vol3", "vol4"):
        system.witness(name).unlink()
    system.signal_service("startup", signal.SIGSTOP)
    system.start_service(CLONING, wait=False)  # and is not admitted
    system.until_subscribed(host_waiting_subject(HOST))
    assert client.command("recover", "vol3")["standing"] == "waiting"
    system.signal_service("startup", signal.SIGCONT)
    system.wait_ready(CLONING)
    client.command("recover", "vol3")
    client.refused("try-again", "vol3")
    client.command("adopt", "vol3", authority="target", accept=True)
    client.command("give-up", "vol4", accept=True)


def _made_anew(system: System) -> None:
    assert system.stop_service(CLONING) == 0
    made_again(system)
    system.start_service(CLONING)
    assert "repair" in system.client.words("vol2")
    assert system.stop_service(CLONING) == 0


def _all_of(news: "queue.SimpleQueue[Msg]") -> tuple[Msg, ...]:
    messages = []
    while not news.empty():
        messages.append(news.get())
    return tuple(messages)
