"""Whether the journal still is what a host relies on, and in a word what it is otherwise. Pure.

A chain that was put back from a copy looks whole by itself: only what the host relied on shows that something is missing. So the
question is always asked of both together.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from shared.migration.ledger import Ledger
from shared.migration.refusals import Code


class JournalCondition(StrEnum):
    """How the journal is to one host, of one migration."""

    SOUND = "sound"  # whole, and it holds what the host relied on
    PENDING = "pending"  # it has yet to take the first record, and something keeps it: the host has relied on nothing so far
    GONE_BACK = "gone-back"  # it lacks a record that the host relied on
    UNKNOWN = "unknown"  # it has no record of the migration at all
    ANOTHER = "another"  # it has another migration of that name
    GIVEN_AWAY = "given-away"  # it is whole, and by an operator's word another host has the migration now
    LATER_RUN = "later-run"  # it is whole, and a later run of this host's name has the migration now
    DAMAGED = "damaged"  # its chain is broken
    UNREADABLE = "unreadable"  # it holds something that is no record
    NEWER_VERSION = "newer-version"  # it holds a record that this version cannot read


WORDS: Mapping[JournalCondition, str] = MappingProxyType(
    {
        JournalCondition.SOUND: "sound",
        JournalCondition.PENDING: "has yet to take it",
        JournalCondition.GONE_BACK: "has gone back",
        JournalCondition.UNKNOWN: "does not know it",
        JournalCondition.ANOTHER: "has another",
        JournalCondition.GIVEN_AWAY: "gives it to another host",
        JournalCondition.LATER_RUN: "gives it to a later run",
        JournalCondition.DAMAGED: "is damaged",
        JournalCondition.UNREADABLE: "cannot be read",
        JournalCondition.NEWER_VERSION: "is of a newer version",
    }
)

HOLDS_WHAT_COUNTS = frozenset({JournalCondition.SOUND, JournalCondition.PENDING})

REPAIRED_AT_START = frozenset(
    {JournalCondition.GONE_BACK, JournalCondition.UNKNOWN, JournalCondition.DAMAGED}
)


def condition_of(ledger: Ledger, uuid: str, relied_on: str, host: str, run: int) -> JournalCondition:
    """How a chain is to the run of a host that has the migration of this UUID and relied on the record of this digest.

    Only one that holds what the host relied on can have given the migration away: an old copy may name whoever had it before.
    A later run of its own name is another process, which began with a copy of the state directory, as on a second machine. It is
    never the next start of this one: that waits for the lock which this one keeps to its end.
    """
    if ledger.broken is not None:
        return JournalCondition.DAMAGED
    if ledger.contains(relied_on):
        return _whose(ledger, host, run) if ledger.uuid == uuid else JournalCondition.SOUND
    if ledger.has_had(uuid):
        return JournalCondition.GONE_BACK
    return JournalCondition.ANOTHER if ledger.exists else JournalCondition.UNKNOWN


def _whose(ledger: Ledger, host: str, run: int) -> JournalCondition:
    if ledger.host != host:
        return JournalCondition.GIVEN_AWAY
    return JournalCondition.LATER_RUN if ledger.run > run else JournalCondition.SOUND


def condition_when_refused(code: Code) -> JournalCondition | None:
    """What a refusal to read a chain says of it; None where it says nothing: it is away."""
    return {
        Code.JOURNAL_UNSOUND: JournalCondition.UNREADABLE,
        Code.NEWER_VERSION: JournalCondition.NEWER_VERSION,
    }.get(code)


def remedy(condition: JournalCondition, migration: str, host: str) -> str:
    """What an operator does about it."""
    whose = f"host {host}" if host else "its host"
    if condition in REPAIRED_AT_START:
        return (
            f"bring the newer journal back if there is one; else restart {whose}: its start repairs the journal from its "
            "witness, which costs a resync"
        )
    match condition:
        case JournalCondition.PENDING:
            return "see to what keeps it, and the logs of NATS and of the services; the host then tells it by itself"
        case JournalCondition.ANOTHER | JournalCondition.UNREADABLE:
            return (
                f"bring back the journal that {whose} relies on, and do not restart it before: it would keep the volume closed; "
                f"see `cutover recover {migration}`"
            )
        case JournalCondition.GIVEN_AWAY:
            return (
                f"{whose} closes it by itself when it looks at the journal; where it does not, end it: two hosts must not write "
                "to the same devices"
            )
        case JournalCondition.LATER_RUN:
            return (
                f"two processes run as {whose}, and the earlier one closes it by itself when it looks at the journal; end that "
                "one, and give each machine a name of its own"
            )
        case JournalCondition.NEWER_VERSION:
            return "upgrade every service to the version that wrote it, the hosts last; an older host keeps the volume closed"
        case _:
            return ""
