"""Checks of what the journal takes and holds: whether its server can store, and whether it is what hosts rely on."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, failure, ok
from shared.bus.storing import REMEDY
from shared.messages.standing import untold
from shared.messages.status import Listed
from shared.migration.condition import WORDS, JournalCondition, remedy

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
        yield failure(said, remedy(each.journal_condition, each.name, each.host))
    if bus.store_trouble:
        yield failure(bus.store_trouble, _TODO)
    waiting = [
        (each.name, wait) for each in bus.migrations if (wait := each.journal_wait) is not None and wait.why
    ]
    for name, wait in waiting:
        yield failure(
            untold(name, wait), _TODO if bus.store_trouble else "see the logs of NATS and of the services"
        )
    if not bus.store_trouble and not waiting and not unsound:
        yield ok("no record waits for it")


def _unsound(facts: Facts) -> list[Listed]:
    """By the word of every host; where only this machine's can be asked, by its."""
    told = facts.bus.listed if facts.bus is not None else ()
    if not told and facts.machine is not None and facts.machine.own_word is not None:
        told = facts.machine.own_word.migrations
    unsound = [each for each in told if each.journal_condition is not JournalCondition.SOUND]
    return sorted(unsound, key=lambda each: each.name)
