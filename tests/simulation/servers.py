"""The servers of remote devices: what happens to them and to connections, and when an operator's word about those is due.

A word is due for a device to which an earlier life of the host has not closed its connection, as far as its witness tells; for
every remote one where the witness was lost. A host that asks for one otherwise would keep a volume closed for nothing.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from services.write_cloning.host import Host
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.simulation.disk import Disk
from tests.simulation.operator import NAME
from tests.simulation.process import NOBODY
from tests.simulation.remote import BROKEN, Connection, RemoteDisk
from tests.simulation.rules import BrokenRuleError

if TYPE_CHECKING:
    from tests.simulation.world import World

SURVIVES_CHANCE = 0.5  # that a server has power while there is none elsewhere
_UNWRITABLE = "fault:witness:unwritable"


class Servers:
    """Those of the remote disks; without any it does nothing."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._disks = [disk for disk in world.disks.values() if isinstance(disk, RemoteDisk)]
        self._unwritten = 0  # witnesses, when this life of the host began
        self._lives = 0
        self._lives_at_word = 0
        self._is_witness_lost = False  # and nobody has vouched since
        if self._disks:
            world.count(f"remote:{self._disks[0].name if len(self._disks) == 1 else 'both'}")

    @property
    def are_any(self) -> bool:
        return bool(self._disks)

    @property
    def is_volume_cut_off(self) -> bool:
        """Whether the side that serves is a connection that is broken, in a state that `cleanup` ends."""
        world = self._world
        side = {State.SETUP: Side.SOURCE, State.COMMITTED: Side.TARGET}.get(world.state or State.SYNCING)
        return side is not None and world.disk(side).is_cut_off

    # ------------------------------------------------------------------ trouble

    def cut_power(self) -> bool:
        """The power goes everywhere, or everywhere but at a server; returns whether it was everywhere."""
        is_everywhere = True
        for disk in self._world.disks.values():
            if disk.is_remote and self._rng.random() < SURVIVES_CHANCE:
                is_everywhere = False
                self._world.count("power-cut:but at a server")
            else:
                disk.cut()
        return is_everywhere

    def cut(self) -> None:
        """The power of one server goes, and of nothing else."""
        disk = self._rng.choice(self._disks)
        self._world.count_fault("server:power-cut")
        self._count_broken(disk)
        disk.cut()
        disk.has_ever_lost_writes = True

    def break_connection(self) -> None:
        """The network, or the server, ends what connections there are to a device."""
        disk = self._rng.choice(self._disks)
        if self._count_broken(disk):
            self._world.count_fault("connection:broken")
            disk.break_connections()

    def _count_broken(self, disk: RemoteDisk) -> bool:
        world = self._world
        if not any(not handle.is_broken for handle in disk.handles):
            return False
        world.count(f"broken:{self._side_of(disk)}:{world.state}")
        return True

    # ------------------------------------------------------------------ lives of the host

    def host_ended(self) -> None:
        """However it was: what it has not told to be closed is in doubt."""
        self._lives += 1
        for disk in self._disks:
            disk.is_in_doubt |= disk.is_opened
            disk.is_opened = False
        self._unwritten = self._world.counts[_UNWRITABLE]

    def host_released(self) -> None:
        """It has closed everything, and its witness says so if that could be written."""
        if self._world.counts[_UNWRITABLE] == self._unwritten:
            for disk in self._disks:
                disk.is_opened = disk.has_lost or bool(disk.handles)

    def draw_adoption(self) -> bool:
        """Whether a lost witness stays lost."""
        return self.are_any and self._rng.random() < 0.5

    def witness_lost(self) -> None:
        """Nobody knows what it named."""
        self._is_witness_lost = True
        for disk in self._disks:
            disk.is_in_doubt = True

    # ------------------------------------------------------------------ the word

    def seem_in_doubt(self) -> bool:
        """Whether the host waits for a word, or says so; checks that it has reason to."""
        host = self._world.host
        if host is None or not self._disks:
            return False
        closed = next((each for each in host.closed if each.name == NAME), None)
        if closed is not None:
            if closed.code != Code.OUTSTANDING_REQUESTS:
                return False
            self._check_doubt([disk for disk in self._disks if disk.name in closed.message])
            return True
        return self._open_in_doubt(host)

    def _open_in_doubt(self, host: Host) -> bool:
        try:
            left = host.find(NAME).apparatus.left_behind
        except Refusal:
            return False
        self._check_doubt([self._world.disk(side) for side in left.in_doubt])
        return bool(left.in_doubt) or any(each.outstanding for each in _retired(host))

    def _check_doubt(self, doubted: Sequence[Disk]) -> None:
        world = self._world
        for disk in doubted:
            world.count(f"doubt:{self._side_of(disk)}")
            if self._is_witness_lost:
                world.count("doubt:by a lost witness")
            if isinstance(disk, RemoteDisk) and not disk.is_in_doubt:
                world.violated(
                    BrokenRuleError(f"a word is asked for {disk.name}, and no connection to it was left")
                )
        if all(disk.is_in_doubt for disk in self._disks) and len(self._disks) == len(world.disks):
            world.count("doubt:both")

    def _side_of(self, disk: Disk) -> Side:
        return Side.SOURCE if disk is self._world.disk(Side.SOURCE) else Side.TARGET

    def end_old_connections(self) -> None:
        """The operator sees to it, before giving the word: what is not in use is dropped at the servers."""
        world = self._world
        for handle in _retired(world.host):
            handle.sever(BROKEN)
        for disk in self._disks:
            if disk.has_landed_late:
                world.count("late:landed before the word")
            if count := disk.end_old_connections():
                world.count("late:left until the word")
                world.note("ended", disk.name, str(count))
            disk.has_landed_late = False
        self._lives_at_word = self._lives

    def word_taken(self) -> None:
        """The host has answered the last word: it was the one that was asked for, unless it died since."""
        if self._lives_at_word == self._lives:
            self.forgotten()

    def forgotten(self) -> None:
        """Nothing is in doubt: the word was taken, or there is no migration any more that could ask for it."""
        self._is_witness_lost = False
        for disk in self._disks:
            disk.is_in_doubt = False

    @asynccontextmanager
    async def looked_after(self) -> AsyncIterator[None]:
        """In calm an operator gives every word that is due."""
        if not self._disks:  # and no task, which would change the order of things in the seeds without any
            yield
            return
        looking = asyncio.get_running_loop().create_task(self._look_after(), context=NOBODY)
        try:
            yield
        finally:
            looking.cancel()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.seem_in_doubt():
                await self._world.operator.vouch()


def _retired(host: Host | None) -> list[Connection]:
    """What gets no request any more, and is not vouched for."""
    try:
        retired = host.find(NAME).apparatus.left_behind.given_up if host is not None else ()
    except Refusal:
        return []
    return [each for each in retired if isinstance(each, Connection)]
