"""What is told where the records of a migration cannot be read: something else stands among them, or a newer version's.

Nothing can be recorded behind what cannot be read: whoever reads the chain afterwards stops at the same place. So no choice is
offered, not even to forget the migration: its host would forget the witness, which says which side is right, and the name would
stay as taken as before.
"""

from services.state_control.hosts import Hosts
from shared.bounded import for_each
from shared.messages.host import HostStatusReply
from shared.migration.condition import JournalCondition, condition_when_refused
from shared.migration.refusals import Refusal

AT_ONCE_MAX = 8
NO_CHOICE = "its journal cannot be read, so nothing can be recorded"
_OPEN = "Application I/O goes on. Do not restart host {1!r} before: its start would keep the volume closed."
_CLOSED = "Then `cutover recover {0} --try-again` opens it."
_ELSE = (
    "Else the way round is another name, with the side that is right as the source: see «The journal cannot be read» in "
    "docs/OPERATING.md."
)


def is_unread(refusal: Refusal) -> bool:
    """Whether a journal was refused for what stands in it, and not because it is away."""
    return condition_when_refused(refusal.code) is not None


def warning(refusal: Refusal, name: str, host: str, *, is_open: bool) -> str:
    """What is wrong, and what to do about it."""
    after = (_OPEN if is_open else _CLOSED).format(name, host)
    if condition_when_refused(refusal.code) is JournalCondition.NEWER_VERSION:
        return f"{refusal.message} Run that version of every service, or a newer one, the hosts last. {after}"
    return f"{refusal.message} Bring back the journal that host {host!r} relies on. {after} {_ELSE}"


def refused(refusal: Refusal, name: str) -> Refusal:
    """The same, for a command that cannot be carried out."""
    return Refusal(
        refusal.code, f"{refusal.message} `cutover recover {name}` shows what its host knows, and what to do."
    )


async def who_has(hosts: Hosts, name: str) -> HostStatusReply | None:
    """What the first host says that has the migration, open or closed; None where none that answers has."""

    async def ask(host: str) -> HostStatusReply | None:
        try:
            return await hosts.check(host, name)
        except Refusal:  # it went away, or hangs
            return None

    answers = await for_each(await hosts.names(), ask, at_once=AT_ONCE_MAX)
    having = (each for each in answers if each is not None and _has(each, name))
    return next(having, None)


def _has(answer: HostStatusReply, name: str) -> bool:
    opened, closed = {each.name for each in answer.migrations}, {each.name for each in answer.closed}
    return name in opened | closed
