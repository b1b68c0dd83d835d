"""The power of source, target, witness and journal is cut at once: what was flushed is there, and nothing stale is believed.

The disks have volatile caches; of what was not flushed nothing, everything or any sectors survive. That the checker would find a
lost write is shown by disks that ignore flushes.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import run
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, SERVICES
from tests.crashes.blocks import BLOCK_BYTES
from tests.crashes.cases import POWER_CUTS, PowerCut, chosen
from tests.crashes.course import BLOCKS, NAME, OPERATIONS, Course
from tests.crashes.dying import until_message
from tests.crashes.evidence import check_verdict, decided
from tests.crashes.machine import EVERYTHING, Machine
from tests.crashes.power import SOURCE, TARGET, Power
from tests.crashes.writing import Writing, fill

pytestmark = pytest.mark.needs_root


class Plant:
    """A machine, its power supply, and a volume that an application writes to."""

    def __init__(self, power: Power, machine: Machine, writing: Writing) -> None:
        self.power = power
        self.machine = machine
        self.course = Course(machine, power.devices[SOURCE], power.devices[TARGET], writing)

    def cut(self, survives: str, seed: int) -> None:
        """Everything stops at one instant, and the machine is a heap of dead parts."""
        self.machine.freeze(EVERYTHING)
        self.power.cut(survives, seed)
        self.machine.kill(EVERYTHING)
        self.power.let_go()

    def cut_while_starting(self, survives: str, seed: int) -> None:
        """Again, in the middle of the replay; the power is on again afterwards."""
        self.machine.start_nats()
        with self.machine.client.heard("cutover.>") as news:
            for service in SERVICES:
                self.machine.start_service(service, wait=False)
            until_message(news, seed + 3)
            self.cut(survives, seed)
        self.power.switch_on()


@pytest.fixture
def plant(background: Background) -> Iterator[Callable[..., Plant]]:
    """Builds one: a system in a filesystem that loses its power together with source and target."""
    with ExitStack() as built:
        yield lambda **options: built.enter_context(_running_plant(background, **options))


@contextmanager
def _running_plant(background: Background, *, ignore_flushes: str = "") -> Iterator[Plant]:
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    power = Power(folder, size_bytes=BLOCKS * BLOCK_BYTES, ignore_flushes=ignore_flushes)
    fill(power.files[SOURCE], BLOCKS)
    try:
        power.switch_on()
        machine = Machine(power.mounted, background)
        try:
            machine.start()
            run("sync", "--file-system", str(power.mounted))  # the configuration, which is the operator's
            machine.set_up(NAME, power.devices[SOURCE], power.devices[TARGET])
            with Writing(machine.export(NAME), BLOCKS, power=True) as writing:
                yield Plant(power, machine, writing)
        finally:
            machine.close()
    finally:
        power.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("case", chosen(POWER_CUTS, 5), ids=str)
def test_power_cut_loses_nothing_that_was_flushed(plant: Callable[..., Plant], case: PowerCut) -> None:
    built = plant()
    machine = built.machine
    bring_to(machine, NAME, case.state)
    built.course.writing.until_operations(OPERATIONS)
    if case.command:
        with machine.client.heard("cutover.>") as news:
            built.course.give(case.command)
            until_message(news, case.messages)
            built.cut(case.survives, case.seed)
    else:
        built.cut(case.survives, case.seed)
    built.power.switch_on()
    before = decided(machine, NAME)
    for time in range(1, case.times):
        built.cut_while_starting(case.survives, case.seed + time)
    machine.mend()
    check_verdict(machine, NAME, before, has_host_died=True)
    assert 2 <= built.course.prove().lives <= 1 + case.times  # a start that was cut may have served before


@pytest.mark.parametrize(("state", "liar"), [("source-selected", SOURCE), ("committed", TARGET)])
def test_disk_that_ignores_flushes_is_found_out(plant: Callable[..., Plant], state: str, liar: str) -> None:
    """The positive control: the same course, with a disk that loses what it has answered for."""
    built = plant(ignore_flushes=liar)
    bring_to(built.machine, NAME, state)
    writing = built.course.writing
    writing.until_operations(5 * OPERATIONS)
    built.cut("none", seed=1)
    built.power.switch_on()
    built.machine.start_nats()
    for service in SERVICES:
        built.machine.start_service(service, wait=False)
    built.machine.wait_ready(CLONING)
    writing.until_lives(2)
    assert writing.stop().wrong != []
