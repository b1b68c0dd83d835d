"""Checks of what the journal takes: whether its server can store, and what hosts have waited in vain to tell it."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, failure, ok
from shared.bus.storing import REMEDY
from shared.messages.standing import untold

_TODO = f"{REMEDY[0].lower()}{REMEDY[1:]}"


def takes_records(facts: Facts) -> Iterator[Finding]:
    """Whether records get into the journal. A server whose store was full takes none, however much room there is by now."""
    if (bus := facts.bus) is None:
        return
    if bus.store_trouble:
        yield failure(bus.store_trouble, _TODO)
    waiting = [
        (each.name, wait) for each in bus.migrations if (wait := each.journal_wait) is not None and wait.why
    ]
    for name, wait in waiting:
        yield failure(
            untold(name, wait), _TODO if bus.store_trouble else "see the logs of NATS and of the services"
        )
    if not bus.store_trouble and not waiting:
        yield ok("no record waits for it")
