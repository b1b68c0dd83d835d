"""What one seed has in store: which kinds of trouble, how much of it, and the one step that it aims at.

Not everything happens to everyone: a seed has some kinds of trouble and lacks others, so that each is also met alone.
"""

import random
from dataclasses import dataclass, field

from shared.migration.devices import Side
from shared.migration.states import State
from shared.migration.table import TRANSITIONS, Step, Transition, Trigger

TROUBLES = (
    "kill-host", "kill-service", "power-cut", "restart-nats", "stop-host", "unlucky-messages",
    "fail-target", "fail-source", "fail-target-flush", "fail-source-flush", "hang-target", "hang-source",
    "unwritable-witness", "unwritable-map", "missing-target", "damage-journal", "damage-witness",
)  # fmt: skip
REMOTE_TROUBLES = ("break-connection", "cut-server")
REMOTE_SHARE = 0.25
WRITEBACK_SHARE = 0.2

# Each step of each row, but that of `setup`, which is not carried out by the executor, is where some seeds crash.
STEPS: tuple[tuple[Transition, Step], ...] = tuple(
    (row, step) for row in TRANSITIONS if row.trigger is not Trigger.SETUP for step in row.steps
)
MAP_POINTS = tuple(f"map-write:{what}" for what in ("begun", "written", "synced"))
POINTS = (
    *(f"put:{what}" for what in ("begun", "renamed", "synced")),
    *(f"remove:{what}" for what in ("begun", "unlinked", "synced")),
    *(f"map-create:{what}" for what in ("begun", "renamed", "synced")),
    *MAP_POINTS,
    *(f"publish:{what}:{when}" for what in ("state", "flag", "fault") for when in ("before", "after")),
    *(f"flush:{what}" for what in ("begun", "done")),
)


def point_of(row: Transition, step: Step) -> str:
    """The name of the moment before a step."""
    return f"{row.before}/{row.trigger}/{step}"


@dataclass(slots=True)
class Plan:
    """See the module's docstring."""

    rng: random.Random
    seed: int
    row: Transition = field(init=False)
    point: str = field(init=False)
    crashes_there: int = field(init=False)
    troubles: tuple[str, ...] = field(init=False)
    duration_s: float = field(init=False)
    pause_s: float = field(init=False)
    point_chance: float = field(init=False)
    power_share: float = field(init=False)
    does_sync: bool = field(init=False)
    alignments: tuple[int, int] = field(init=False)
    remote: frozenset[str] = field(init=False)  # the disks that stand in servers
    does_delay_words: bool = field(init=False)  # the network does, an operator's about those servers
    broken_in: State | None = field(init=False)  # connections are, in this state in particular
    gone_back: Side | None = field(init=False)  # whose cache fails to write back now and then
    has_maps: bool = field(init=False)
    is_local: bool = field(
        init=False
    )  # the application keeps to few regions for a while, so that others grow clean
    spoils_maps: bool = field(
        init=False
    )  # maps cannot be written; else the power goes when a region has become clean
    visits: bool = field(
        init=False
    )  # the application comes back for a moment to what is about to grow clean; soon after, the power goes
    is_peaceful: bool = field(
        init=False
    )  # there is no other trouble, so that there is time for regions to grow clean, and for both sides to be compared
    flushes: bool = field(
        init=False
    )  # the application does; else what is durable is so by the product's own flushes

    def __post_init__(self) -> None:
        rng = self.rng
        # One further at each round, so that no step falls to the same last digit, by which other things are drawn, for ever.
        self.row, step = STEPS[(self.seed + self.seed // len(STEPS)) % len(STEPS)]
        self.point = point_of(self.row, step)
        # Steps have every other round to themselves: with some numbers of steps, others would never be aimed at.
        if self.seed % 4 == 3 and self.seed // len(STEPS) % 2 == 0:
            self.point = POINTS[self.seed // 4 % len(POINTS)]
        self.crashes_there = rng.choice((1, 1, 2, 10))
        self.troubles = tuple(each for each in TROUBLES if rng.random() < 0.35)
        if {"damage-journal", "damage-witness"} <= set(self.troubles):
            # One thing at a time is what can be survived: without either, nobody knows what was decided.
            self.troubles = tuple(
                each for each in self.troubles if each != rng.choice(("damage-journal", "damage-witness"))
            )
        self.duration_s = rng.uniform(20, 70)
        self.pause_s = rng.choice((2.0, 4.0, 8.0))
        self.point_chance = rng.choice((0.0, 0.0, 0.005, 0.02))
        self.power_share = rng.choice((0.0, 0.5, 1.0))
        self.does_sync = rng.random() < 0.7 or "damage-witness" in self.troubles
        self.has_maps = rng.random() < 0.6
        self.is_local = self.has_maps and self.seed % 10 in {3, 6, 8}
        self.flushes = self.seed % 10 not in {2, 6, 8}
        self.spoils_maps = self.is_local and rng.random() < 0.4 and not self.flushes
        self.visits = self.is_local and not self.spoils_maps and not self.flushes
        if self.is_local:
            self.power_share = 1.0
        if self.is_local and not self.spoils_maps:
            self.point = rng.choice(MAP_POINTS)
            self.crashes_there, self.pause_s = 10, 8.0
        self.is_peaceful = self.visits or self.spoils_maps
        if self.is_peaceful:
            self.point, self.point_chance, self.troubles, self.duration_s = "", 0.0, (), 70.0
        alignment = rng.choice((512, 512, 1024))
        self.alignments = (alignment, rng.choice((512, alignment)))
        self._draw_remote(
            random.Random(f"{self.seed}:remote")
        )  # of its own, so that the other seeds stay what they were
        self._draw_writeback(random.Random(f"{self.seed}:writeback"))

    def _draw_writeback(self, rng: random.Random) -> None:
        fails = rng.random() < WRITEBACK_SHARE and not self.is_peaceful
        self.gone_back = rng.choice((Side.SOURCE, Side.SOURCE, Side.TARGET)) if fails else None

    def _draw_remote(self, rng: random.Random) -> None:
        if rng.random() >= REMOTE_SHARE or self.is_peaceful:
            self.remote, self.broken_in, self.does_delay_words = frozenset(), None, False
            return
        self.remote = frozenset(rng.choice((("disk-a",), ("disk-b",), ("disk-a", "disk-b"))))
        self.broken_in = rng.choice((None, *State))
        self.does_delay_words = rng.random() < 0.5
        self.troubles += tuple(each for each in REMOTE_TROUBLES if rng.random() < 0.5)
