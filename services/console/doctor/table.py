"""The checks, in the order in which they are told: what everything rests on first."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.console.doctor import of_bus, of_configuration, of_files, of_journal, of_machine
from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, Outcome, failure


@dataclass(frozen=True, slots=True)
class Check:
    """One check. It may have nothing to say, where what it is about is not there, and more than one line."""

    name: str
    judge: Callable[[Facts], Iterable[Finding]]


CHECKS = (
    Check("configuration", of_configuration.readable),
    Check("time-outs", of_configuration.time_outs),
    Check("files", of_files.named_files),
    Check("tls", of_files.tls),
    Check("nats", of_bus.reachable),
    Check("certificate", of_bus.certificate),
    Check("nats version", of_bus.server_version),
    Check("nats sync", of_bus.sync_setting),
    Check("credentials", of_bus.credentials),
    Check("permissions", of_bus.permissions),
    Check("streams", of_bus.streams),
    Check("journal room", of_bus.journal_room),
    Check("journal", of_journal.records),
    Check("clocks", of_bus.clocks),
    Check("services", of_bus.services),
    Check("hosts", of_bus.hosts),
    Check("volumes", of_bus.volumes),
    Check("questions", of_bus.unanswered),
    Check("not checked", of_bus.not_checked),
    Check("io engine", of_machine.io_uring),
    Check("devices", of_machine.devices),
    Check("state directory", of_machine.state_directory),
    Check("state room", of_machine.state_room),
    Check("state sync", of_machine.state_sync),
    Check("export", of_machine.export_sockets),
    Check("memory", of_machine.memory),
    Check("open files", of_machine.descriptors),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A finding, and the check that it is of."""

    check: str
    outcome: Outcome
    message: str
    todo: str


def lines(facts: Facts) -> Iterator[Line]:
    """What every check finds. One that cannot cope with what it was given says so, and the others go on."""
    for check in CHECKS:
        for finding in _found(check, facts):
            yield Line(check=check.name, outcome=finding.outcome, message=finding.message, todo=finding.todo)


def _found(check: Check, facts: Facts) -> list[Finding]:
    try:
        return list(check.judge(facts))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return [failure(f"this check is wrong itself: {type(error).__name__}: {error}", "report it")]
