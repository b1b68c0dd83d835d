"""What can become of the journal's files: put back from a copy, damaged in a bit, cut short, or made by somebody else."""

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nats

from shared.bus.bootstrap import bootstrap
from shared.bus.connection import connected
from shared.clock import SystemClock
from tests.acceptance.system.plain_client import JOURNAL
from tests.acceptance.system.whole_system import SERVICES, System

_STORE = "nats/jetstream"


@dataclass(frozen=True, slots=True)
class Copy:
    """The whole store at one time."""

    path: Path


def copy_store(system: System, name: str) -> Copy:
    """A backup, with the server stopped as a careful operator would."""
    system.stop_nats()
    copy = system.folder / f"store-{name}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(system.folder / _STORE, copy)
    system.start_nats()
    return Copy(copy)


def put_back(system: System, copy: Copy) -> None:
    """The power went, and what the server had acknowledged since the copy with it; or the copy was put back."""
    system.stop_nats()
    shutil.rmtree(system.folder / _STORE)
    shutil.copytree(copy.path, system.folder / _STORE)
    system.start_nats()


def flip_bit(system: System, needle: bytes) -> None:
    """One bit of the last place where this stands in the journal's blocks."""
    _damage(system, needle, lambda content, at: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def cut_short(system: System, needle: bytes) -> None:
    """The blocks end in the middle of the last record that has this."""
    _damage(system, needle, lambda content, at: content[:at])


def _damage(system: System, needle: bytes, damaged: Callable[[bytes, int], bytes]) -> None:
    system.stop_nats()
    blocks = sorted((system.folder / _STORE).rglob(f"{JOURNAL}/msgs/*.blk"))
    hit = next(block for block in reversed(blocks) if needle in block.read_bytes())
    content = hit.read_bytes()
    hit.write_bytes(damaged(content, content.rindex(needle)))
    for index in hit.parent.glob("index.db"):
        index.unlink()  # as after a cut: the server reads its blocks again
    system.start_nats()


def made_again(system: System, *records: dict[str, object]) -> None:
    """Somebody has deleted the stream and created it anew, with records of his own for `vol1`."""
    asyncio.run(_made_again(system.url, records))


async def _made_again(url: str, records: tuple[dict[str, object], ...]) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().delete_stream(JOURNAL)
        async with connected(url, name="bootstrap", clock=SystemClock()) as bus:
            await bootstrap(bus)
        for record in records:
            await client.jetstream().publish("cutover.journal.vol1.state", json.dumps(record).encode())
    finally:
        await client.close()


def until_all_serve(system: System) -> None:
    """Once NATS was down, every service has found it again."""
    for service in SERVICES:
        if system.is_running(service):
            system.wait_ready(service)


def lose_the_store(system: System) -> None:
    """NATS is killed, its disk is replaced, and the operator does what doctor tells him."""
    system.kill_nats()
    shutil.rmtree(system.folder / _STORE)
    system.start_nats()
    system.create_streams()
    until_all_serve(system)
