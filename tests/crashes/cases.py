"""Which crashes are tried: a table of what dies, in which state or during which command, at which moment.

The ordinary run takes a spread of them, some of every kind; with `CRASH_CASES=all` it takes them all.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import TypeVar

from tests.acceptance.system.whole_system import CLONING, SERVICES
from tests.crashes.machine import ALL_SERVICES, EVERYTHING, NATS, VICTIMS

STATES = ("setup", "syncing", "source-selected", "target-selected", "committed")
CLONES = STATES[1:4]
NOTHING = "nothing"  # the state before `setup`

VARIABLE = "CRASH_CASES"


@dataclass(frozen=True, slots=True)
class Moment:
    """When the victim dies: between operations, after so many messages, or entering a system call."""

    messages: int = 0  # on `cutover.>` since the command was given, itself included
    syscall: str = ""
    call: int = 0  # the how-manieth

    def __str__(self) -> str:
        if self.syscall:
            return f"entering {self.syscall} {self.call}"
        return f"message {self.messages}" if self.messages else "at rest"


AT_REST = Moment()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One crash."""

    kind: str
    state: str
    command: str = ""
    victim: str
    moment: Moment = AT_REST

    def __str__(self) -> str:
        during = f"during {self.command} in" if self.command else "in"
        return f"{self.kind}: {self.victim} {during} {self.state}, {self.moment}"


# What a command passes through: `cutover.>` messages, the last being its record in the journal, and durable writes of the host.
COMMANDS: dict[str, tuple[str, int]] = {
    # command: the state that it is given in, messages
    "setup": (NOTHING, 6),
    "sync": ("setup", 8),
    "resume": ("syncing", 5),
    "select-target": ("source-selected", 5),
    "select-source": ("target-selected", 5),
    "commit": ("target-selected", 8),
    "abort": ("target-selected", 7),
    "cleanup": ("setup", 5),
    "pause": ("source-selected", 3),
}
# The host's durable step is: write aside, fsync, rename, fsync of the folder. Dying at the entry of one is dying after the one
# before; the third fsync is the one of the next durable step.
HOST_STEPS = tuple(
    Moment(syscall=syscall, call=call)
    for syscall, call in (("fsync", 1), ("rename", 1), ("fsync", 2), ("fsync", 3), ("rename", 2))
)
NATS_STEPS = (
    Moment(syscall="fsync", call=1),
    Moment(syscall="pwrite64", call=1),
    Moment(syscall="fsync", call=2),
)


def at_rest() -> Iterator[Case]:
    """Each service, the NATS server, all services, everything at once: killed in each state, under load."""
    for state, victim in product(STATES, VICTIMS):
        yield Case(kind="kill", state=state, victim=victim)


def during_commands() -> Iterator[Case]:
    """Killed as the messages of a command go by."""
    for command, (state, messages) in COMMANDS.items():
        for victim in (CLONING, "state_control", "fault_recording", NATS, EVERYTHING):
            if victim == "fault_recording" and command not in {"sync", "commit", "abort"}:
                continue  # it has no part in the others
            for message in range(1, messages + 1, 2 if victim in {CLONING, "state_control"} else 3):
                yield Case(
                    kind=f"{victim} while commanded", state=state, command=command, victim=victim,
                    moment=Moment(messages=message),
                )  # fmt: skip


def durable_steps() -> Iterator[Case]:
    """Killed before and after each durable step: of the host's witness, of the journal's store."""
    for command, (state, _) in COMMANDS.items():
        for moment in HOST_STEPS if command in {"sync", "commit", "abort", "setup"} else HOST_STEPS[:3]:
            yield Case(kind="witness", state=state, command=command, victim=CLONING, moment=moment)
        if command == "pause":
            continue  # it is none of the journal's business
        for moment in NATS_STEPS if command in {"sync", "commit", "abort"} else NATS_STEPS[:1]:
            yield Case(kind="store", state=state, command=command, victim=NATS, moment=moment)


def while_recovering() -> Iterator[Case]:
    """Killed again while startup replays what an earlier kill has left."""
    for state in CLONES:
        for victim, message in product(
            (CLONING, "startup", "fault_recording", "state_control", NATS), (1, 3, 5)
        ):
            yield Case(
                kind="again", state=state, command="start", victim=victim, moment=Moment(messages=message)
            )
        for moment in HOST_STEPS[:3]:
            yield Case(kind="again", state=state, command="start", victim=CLONING, moment=moment)


KILLS: tuple[Case, ...] = (*at_rest(), *during_commands(), *durable_steps(), *while_recovering())


def stops() -> Iterator[Case]:
    """SIGTERM in each state: of the host, of each other service, of everything; with NATS there and away."""
    for state in STATES:
        for victim in (*SERVICES, ALL_SERVICES, EVERYTHING):
            yield Case(kind="stop", state=state, victim=victim)
        yield Case(kind="stop without NATS", state=state, victim=CLONING)


STOPS: tuple[Case, ...] = tuple(stops())


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCut:
    """The power goes, of all disks at once; at rest, or as the messages of a command go by."""

    kind: str
    state: str
    command: str = ""
    messages: int = 0
    survives: str  # of what was not flushed: none, all, or some sectors
    seed: int = 1
    times: int = 1  # more than once: again during the recovery

    def __str__(self) -> str:
        during = f"message {self.messages} of {self.command}" if self.command else "at rest"
        often = f", {self.times} times" if self.times > 1 else ""
        return f"{self.kind}: {self.state}, {during}, {self.survives} survives{often}, seed {self.seed}"


def power_cuts() -> Iterator[PowerCut]:
    """In each state, during each command that moves something, and again while it is recovered from."""
    for state, survives in product(STATES, ("none", "all", "some")):
        yield PowerCut(kind="power", state=state, survives=survives)
    for command in ("sync", "resume", "select-target", "commit", "abort"):
        state, messages = COMMANDS[command]
        for message in range(3, messages + 1):
            yield PowerCut(
                kind="power while commanded", state=state, command=command, messages=message, seed=message,
                survives="none" if message % 2 else "some",
            )  # fmt: skip
    for state, seed in product(CLONES, (1, 2)):
        yield PowerCut(kind="power again", state=state, survives="some", seed=seed, times=3)


POWER_CUTS: tuple[PowerCut, ...] = tuple(power_cuts())

AnyCase = TypeVar("AnyCase", Case, PowerCut)


def chosen(cases: Sequence[AnyCase], ordinarily: int) -> list[AnyCase]:
    """As many as are wanted: kinds take turns, and each gives cases from all of its range."""
    wanted = os.environ.get(VARIABLE)
    if wanted == "all":
        return list(cases)
    if wanted:
        raise ValueError(f"{VARIABLE} is {wanted!r}; it may be `all`, or not set")
    kinds: dict[str, list[AnyCase]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    share = -(-ordinarily // len(kinds))
    spread = [_spread(each, share) for each in kinds.values()]
    turns = (case for turn in zip_longest(*spread) for case in turn if case is not None)
    return [case for _, case in zip(range(ordinarily), turns, strict=False)]


def _spread(cases: Sequence[AnyCase], count: int) -> list[AnyCase]:
    """So many of them, as far apart as can be, and not always of the same column of the table."""
    if count >= len(cases):
        return list(cases)
    return [cases[(2 * number + 1) * len(cases) // (2 * count)] for number in range(count)]
