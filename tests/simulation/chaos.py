"""Whoever brings the trouble that a seed has in store."""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES
from shared.migration.table import Trigger
from tests.simulation.disk import EIO, ENOSPC, SECTOR, DiskFault
from tests.simulation.machine import REGION_BYTES
from tests.simulation.process import NOBODY

if TYPE_CHECKING:
    from tests.simulation.world import World

NOT_VISITED_CHANCE = 0.3
CUT_AFTER_VISIT_CHANCE = 0.3
SYNC_SPOILT_CHANCE = 0.8
WRITEBACK_CHANCE = 0.4
ELSEWHERE_CHANCE = 0.05  # in states in which one side alone is in use
NO_WITNESS_EITHER_CHANCE = 0.5
STOPPED_CHANCE = 0.4  # of a host whose connection has just broken
_OPERATIONS = ("", "write", "write", "zero", "read")


class Chaos:
    """See the module's docstring."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._of_writeback = random.Random(f"{world.seed}:chaos of writeback")
        self._of_stops = random.Random(f"{world.seed}:stops")
        self._of_syncs = random.Random(f"{world.seed}:syncs")
        self._of_space = random.Random(f"{world.seed}:space")
        self._is_cut_due = False
        self._has_spoilt = False
        self._visited: int | None = None  # the region that the application came back to last
        self._ways: dict[str, Callable[[], object]] = {
            "kill-host": lambda: world.crash("any time", with_power=False),
            "kill-service": lambda: world.kill_service(rng.choice(sorted(world.services))),
            "power-cut": lambda: world.crash("any time", with_power=True),
            "restart-nats": lambda: world.restart_nats(rng.random() * 12, with_power=rng.random() < 0.5),
            "stop-host": world.stop_host,
            "unlucky-messages": lambda: setattr(world.nats, "unluck", rng.choice((0.0, 0.05, 0.2, 0.5))),
            "fail-target": lambda: self._fail(Side.TARGET),
            "fail-source": lambda: self._fail(Side.SOURCE),
            "fail-target-flush": lambda: self._fail_flush(Side.TARGET),
            "fail-source-flush": lambda: self._fail_flush(Side.SOURCE),
            "hang-target": lambda: world.hang(Side.TARGET, rng.random() * 20),
            "hang-source": lambda: world.hang(Side.SOURCE, rng.random() * 10),
            "unwritable-witness": lambda: setattr(
                world.witness_files, "puts_to_fail", rng.choice((1, 1, 2, 5))
            ),
            "unwritable-map": self._fill_state_dir,
            "missing-target": lambda: world.lose_device_for(rng.random() * 10),
            "damage-journal": world.damage_journal,
            "damage-witness": world.damage_witness,
            "break-connection": world.break_connection,
            "cut-server": world.cut_server,
        }

    async def run(self) -> None:
        """Trouble for ever."""
        world, rng = self._world, self._rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / world.plan.pause_s))
            if world.plan.troubles:
                self.bring(rng.choice(world.plan.troubles))

    async def aim(self) -> None:
        """Bring about the fault that the row the seed aims at is about."""
        world, row = self._world, self._world.plan.row
        if row.trigger not in {Trigger.TARGET_FAULT, Trigger.SOURCE_FAULT} or world.plan.is_peaceful:
            return
        side = Side.TARGET if row.trigger is Trigger.TARGET_FAULT else Side.SOURCE
        while True:
            await asyncio.sleep(self._rng.random() * 2)
            if world.state is row.before and not world.disk(side).faults:
                self._fail(side)
                if side is Side.SOURCE and self._rng.random() < 0.3:
                    world.witness_files.puts_to_fail = 1  # then the authority cannot move

    async def aim_at_connections(self) -> None:
        """Break connections in the state that the seed aims at, and often stop the host before anybody has vouched for them."""
        world, rng = self._world, self._rng
        while True:
            await asyncio.sleep(rng.random() * 0.5)
            if world.state is world.plan.broken_in and rng.random() < 0.2:
                world.break_connection()
                stops = self._of_stops
                if stops.random() < STOPPED_CHANCE:
                    world.loop.call_later(stops.random() * 3, self._stop_soon, context=NOBODY)
                await asyncio.sleep(rng.random() * 20)

    def _fill_state_dir(self) -> None:
        """Where there is no room for a map, there often is none for a witness."""
        self._world.maps.writes_to_fail = self._rng.choice((1, 2))
        if self._of_space.random() < NO_WITNESS_EITHER_CHANCE:
            self._world.witness_files.puts_to_fail = 1

    def _stop_soon(self) -> None:
        if not self._world.is_calm:
            self._world.stop_host()

    async def fail_writeback(self, side: Side) -> None:
        """Have the cache of this side lose what it held, and only a flush tell of it."""
        world, rng = self._world, self._of_writeback
        while True:
            await asyncio.sleep(rng.random())
            is_due = world.state in CLONING_STATES or rng.random() < ELSEWHERE_CHANCE
            if is_due and rng.random() < WRITEBACK_CHANCE and world.lose_writeback(side):
                await asyncio.sleep(rng.random() * 20)

    def bring(self, trouble: str) -> None:
        """Bring one kind."""
        self._world.note("trouble", trouble)
        self._ways[trouble]()

    async def spoil_maps(self) -> None:
        """Have a map not written when a region is to be marked; and soon what is on disk is all that is known."""
        world, rng = self._world, self._rng
        while True:
            await asyncio.sleep(rng.random() * 6)
            if world.has_clean_region:
                world.maps.writes_to_fail = 1
                world.application.move()
                await asyncio.sleep(rng.random() * 3)
                world.maps.writes_to_fail = 0
                world.crash("any time", with_power=rng.random() < world.plan.power_share)
                await asyncio.sleep(rng.random() * 6)

    def sync_begun(self) -> None:
        """Have neither the map nor the witness written for it; what the source alone is given then has to be copied later."""
        world, rng = self._world, self._of_syncs
        clean = world.clean_regions
        self._has_spoilt = bool(clean) and not self._has_spoilt and rng.random() < SYNC_SPOILT_CHANCE
        if self._has_spoilt:  # the next one shall show what has come of it
            world.maps.writes_to_fail, world.witness_files.puts_to_fail = 1, 2
            world.application.visit(rng.choice(clean) * REGION_BYTES // SECTOR, 1.0)
            world.loop.call_later(0.2 + rng.random(), self._kill_host, context=NOBODY)

    def _kill_host(self) -> None:
        self._world.crash("any time", with_power=False)

    def flush_begun(self) -> None:
        """Have the application write to a region that this flush may make clean; soon what is on disk is all that is known."""
        world, rng = self._world, self._rng
        region = world.region_growing_clean()
        if region is None or rng.random() < NOT_VISITED_CHANCE:
            return
        self._visited = region
        world.note("visit", str(region))
        world.application.visit(region * REGION_BYTES // SECTOR + rng.randrange(4), rng.random() * 0.5)
        if rng.random() < CUT_AFTER_VISIT_CHANCE:
            self._cut_power_within(4.0)

    def map_written(self) -> None:
        """Before any further flush: the region should not be clean, and what was written to it is not durable yet."""
        if self._visited is not None and self._world.is_clean(self._visited):
            self._visited = None
            self._cut_power_within(1.0)

    def _cut_power_within(self, seconds: float) -> None:
        if not self._is_cut_due:
            self._is_cut_due = True
            self._world.loop.call_later(self._rng.random() * seconds, self._cut_power, context=NOBODY)

    def _cut_power(self) -> None:
        self._is_cut_due = False
        self._world.crash("any time", with_power=True)

    def _fail_flush(self, side: Side) -> None:
        self._world.disk(side).faults.append(DiskFault("flush-once", "flush", EIO, 1))

    def _fail(self, side: Side) -> None:
        rng, disk = self._rng, self._world.disk(side)
        kind, error = rng.choice((("eio", EIO), ("short", EIO), ("enospc", ENOSPC)))
        operation = "write" if kind == "enospc" else rng.choice(_OPERATIONS)
        sectors = None
        if rng.random() < 0.5:
            begin = rng.randrange(disk.sectors)
            sectors = range(begin, begin + 8)
        disk.faults.append(DiskFault(kind, operation, error, rng.choice((1, 1, 3, 20)), sectors))
