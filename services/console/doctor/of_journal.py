"""Checks of what the journal takes and holds: whether its server can store, and whether it is what hosts rely on."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, failure, ok, warning
from services.console.doctor.of_bus import VOLUMES
from shared.bus.storing import REMEDY
from shared.messages.local import LocalStatus
from shared.messages.standing import untold
from shared.messages.status import Listed
from shared.migration.condition import WORDS, JournalCondition, remedy
from shared.migration.names import is_valid_name

_NO_NAME = "no migration has such a name, and none is touched by it: find out who wrote that into the journal, and with which key"
_NOBODYS = (
    "start the host that has it; `cutover recover` then shows what that knows, and «The journal cannot be read» in "
    "docs/OPERATING.md says what to do. Where nobody has it, find out who wrote that into the journal"
)
_TODO = f"{REMEDY[0].lower()}{REMEDY[1:]}"


def records(facts: Facts) -> Iterator[Finding]:
    """Whether it holds what hosts rely on, and records get into it.

    Nobody records anything in one that hosts cannot rely on. A server whose store was full takes no record, however much room
    there is by now.
    """
    if (bus := facts.bus) is None:
        return
    unsound = _unsound(facts)
    for each in unsound:
        why = each.warnings[0] if each.warnings else f"the journal {WORDS[each.journal_condition]}"
        said = why if why.startswith(f"{each.name}: ") else f"{each.name}: {why}"
        yield failure(said, _todo(each))
    if bus.store_trouble:
        yield failure(bus.store_trouble, _TODO)
    own_word = _own_word(facts)
    told = own_word.migrations if own_word is not None else bus.migrations
    is_told = {each.name for each in unsound}
    waiting = [
        (each.name, wait)
        for each in told
        if (wait := each.journal_wait) is not None and wait.why and each.name not in is_told
    ]
    for name, wait in waiting:
        yield failure(
            untold(name, wait), _TODO if bus.store_trouble else "see the logs of NATS and of the services"
        )
    if bus.store_trouble or waiting or unsound:
        return
    if own_word is not None and not own_word.nats_is_away:
        yield ok("no record of this machine's host waits for it")
    elif bus.has_list and VOLUMES not in bus.unasked:
        yield ok("no record waits for it")
    elif VOLUMES not in bus.unasked or own_word is not None:
        yield warning(
            "not looked at: nobody could tell whether a record waits for it", "see the other lines for why"
        )


def _todo(each: Listed) -> str:
    """What to do about a journal that its host cannot rely on, or that is nobody's."""
    if each.host or each.journal_condition is JournalCondition.NEWER_VERSION:
        return remedy(each.journal_condition, each.name, each.host)
    if not is_valid_name(each.name):
        return _NO_NAME
    return _NOBODYS


def _own_word(facts: Facts) -> LocalStatus | None:
    """Of this machine's host, where no other can be asked."""
    is_asked = facts.bus is not None and facts.bus.has_list and VOLUMES not in facts.bus.unasked
    return facts.machine.own_word if facts.machine is not None and not is_asked else None


def _unsound(facts: Facts) -> list[Listed]:
    """By the word of every host; where only this machine's can be asked, by its."""
    told = facts.bus.listed if facts.bus is not None else ()
    if not told and (own_word := _own_word(facts)) is not None:
        told = own_word.migrations
    unsound = [each for each in told if each.journal_condition is not JournalCondition.SOUND]
    return sorted(unsound, key=lambda each: each.name)
