"""What enough seeds must reach: every row of both tables, every step of every row as a place to crash, every kind of fault."""

from collections import Counter

from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, State
from shared.migration.table import TRANSITIONS, Trigger
from shared.migration.verdicts import VERDICTS
from tests.simulation.plan import POINTS, STEPS, point_of

_DEVICE_FAULTS = (
    *(f"eio:{operation}" for operation in ("read", "write", "zero")),
    *(f"short:{operation}" for operation in ("write", "zero")),
    *(f"hang:{operation}" for operation in ("read", "write", "zero", "flush")),
    *(f"flush-once:{operation}" for operation in ("flush", "write", "zero")),
    "enospc:write", "device:missing",
)  # fmt: skip
_STORAGE_FAULTS = (
    "witness:unwritable", "witness:lost", "witness:torn", "witness:flipped", "map:unwritable",
    "journal:old-copy", "journal:hole", "journal:forged",
)  # fmt: skip
_BUS_FAULTS = (
    "nats:restart", "nats:power-cut",
    *(f"{kind}:{fate}" for kind in ("request", "publish") for fate in ("lost", "unacknowledged", "late")),
    "request:twice",
)  # fmt: skip

_OF_CACHES = (
    *(f"fault:lost-writeback:{operation}" for operation in ("flush", "write", "zero")),
    *(f"went-back:{side}:{state}" for side in Side for state in (State.SETUP, *sorted(CLONING_STATES))),
)  # fmt: skip

_OF_REMOTE_DEVICES = (
    *(f"remote:{which}" for which in ("disk-a", "disk-b", "both")),
    *(f"doubt:{which}" for which in (*Side, "both", "by a lost witness")),
    *(f"broken:{side}:{state}" for side in Side for state in (State.SETUP, *sorted(CLONING_STATES))),
    f"broken:{Side.TARGET}:{State.COMMITTED}",
    *(f"adopted:{side}" for side in Side),
    "late:landed before the word", "late:left until the word", "fault:server:power-cut", "fault:connection:broken",
    "power-cut:but at a server", "command:vouch", "refused:vouch", "refused:outstanding-requests",
)  # fmt: skip

REQUIRED: tuple[str, ...] = (
    *(f"row:{row.before}/{row.trigger}" for row in TRANSITIONS if row.trigger is not Trigger.SETUP),
    "row:None/setup",
    *(f"verdict:{verdict.label}" for verdict in VERDICTS),
    *(f"crash:{point_of(row, step)}" for row, step in STEPS),
    *(f"crash:{point}" for point in POINTS),
    *(f"fault:{fault}" for fault in (*_DEVICE_FAULTS, *_STORAGE_FAULTS, *_BUS_FAULTS)),
    "kill", "power-cut", "stop:clean", "stop:unclean", "compared", "resync:narrow", "given-up",
    *(f"command:{command}" for command in ("pause", "resume", "throttle", "verify")),
    *(f"depth:{depth}" for depth in range(2, 11)),
    *_OF_CACHES,
    *_OF_REMOTE_DEVICES,
)  # fmt: skip


def missing(counts: Counter[str]) -> list[str]:
    """What was never reached."""
    return [each for each in REQUIRED if not counts[each]]
