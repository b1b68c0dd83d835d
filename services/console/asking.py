"""The questions and commands that the console sends, each the same request that `nats req` sends."""

import secrets
from typing import Protocol

from services.console.failures import usage
from shared.bus.interface import Listening, Requests
from shared.messages.control import (
    FAULTS_SUBJECT,
    LIST_SUBJECT,
    CommandReply,
    FaultsReply,
    ListReply,
    PlainRequest,
    control_subject,
)
from shared.messages.status import FaultView, MigrationStatus, UnlistedMigration
from shared.migration.condition import JournalCondition, condition_when_refused
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Refusal

QUESTION_TIMEOUT_S = 5.0
# State control itself gives the host a minute for what must be flushed, and its answer says more than our timeout.
COMMAND_TIMEOUT_S = 90.0
_UNREAD = frozenset({JournalCondition.UNREADABLE, JournalCondition.NEWER_VERSION})


class Link(Requests, Listening, Protocol):
    """What the console needs of the bus."""


def operation_id() -> str:
    """A name for one command, so that repeating it does no harm."""
    return f"console-{secrets.token_hex(12)}"


def check_name(name: str) -> str:
    """The name, if it can be one; it becomes part of a subject.

    Raises:
        ConsoleError: (`usage`) it cannot.
    """
    if not is_valid_name(name):
        raise usage(f"{name!r} cannot name a migration: {NAME_RULE}.")
    return name


async def status_of(link: Link, name: str) -> MigrationStatus:
    """How one migration is."""
    return await link.request(
        control_subject("query", name), PlainRequest(), MigrationStatus, timeout_s=QUESTION_TIMEOUT_S
    )


async def list_all(link: Requests) -> ListReply:
    """How all migrations are, and what hosts have besides."""
    return await link.request(LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=QUESTION_TIMEOUT_S)


async def unread_of(link: Requests, name: str, refusal: Refusal) -> UnlistedMigration:
    """What a host tells of a migration whose journal cannot be read, in place of the refusal that says so.

    Raises:
        Refusal: the same, where it is for another reason.
    """
    if condition_when_refused(refusal.code) is None:
        raise refusal
    for each in (await list_all(link)).unlisted:
        if each.name == name and each.journal_condition in _UNREAD:
            return each
    raise refusal


async def fault_log(link: Link, name: str | None) -> tuple[FaultView, ...]:
    """The fault log of one migration, or of all."""
    subject = FAULTS_SUBJECT if name is None else control_subject("faults", name)
    reply = await link.request(subject, PlainRequest(), FaultsReply, timeout_s=QUESTION_TIMEOUT_S)
    return reply.faults


async def command(link: Link, verb: str, name: str, request: object) -> CommandReply:
    """Have a command carried out."""
    return await link.request(control_subject(verb, name), request, CommandReply, timeout_s=COMMAND_TIMEOUT_S)
