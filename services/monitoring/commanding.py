"""The commands that the page offers to an operator, what is asked before each, and how they are sent.

They are the requests that `cutover` and `nats req` send, over a connection that has the operator's credentials. Whether one is
allowed is not decided here: state_control and the host do that.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared.bus.interface import Requests
from shared.messages.codec import decode
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    CommitRequest,
    PlainRequest,
    ThrottleRequest,
    control_subject,
)
from shared.messages.questions import abort_question, after_commit, cleanup_question, commit_question
from shared.messages.status import MigrationStatus
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Code, Refusal
from shared.migration.states import IN_SYNC_STATES, State
from shared.plain import shortened

QUERY_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 90.0  # state_control gives the host a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One command: its request, what is asked before it, and whether it makes sense beyond what the status allows."""

    request: type
    ask: Callable[[MigrationStatus], str]
    where: Callable[[MigrationStatus], bool] | None = None  # None: where the status allows it
    is_final: bool = False  # cannot be undone


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked before a command, and what can be chosen with it."""

    command: str
    migration: str
    text: str
    is_final: bool
    is_allowed: bool
    options: tuple[dict[str, str], ...] = ()
    afterwards: str = ""


def _sync(status: MigrationStatus) -> str:
    much = ""
    if status.resync_bytes is not None and status.resync_bytes < status.size_bytes:
        much = " Only what may differ is copied."
    return (
        f"Sync {status.name}: every write goes to both devices from now on, and the rest is copied to {status.target}.{much}\n"
        f"What {status.target} holds now is overwritten."
    )


def _plainly(text: str) -> Callable[[MigrationStatus], str]:
    return lambda status: text.format(name=status.name, source=status.source, target=status.target)


def _is_going(status: MigrationStatus) -> bool:
    return status.host_error is None and status.state not in {State.SETUP, State.COMMITTED}


OFFERS: Mapping[str, Offer] = {
    "sync": Offer(request=PlainRequest, ask=_sync),
    "pause": Offer(
        request=PlainRequest,
        ask=_plainly("Pause {name}: no further region is copied or compared; writes go on to both devices."),
        where=lambda status: _is_going(status) and not status.paused,
    ),
    "resume": Offer(
        request=PlainRequest,
        ask=_plainly("Resume {name}: copying, or comparing, goes on."),
        where=lambda status: _is_going(status) and bool(status.paused),
    ),
    "throttle": Offer(
        request=ThrottleRequest,
        ask=_plainly("Limit how fast {name} is copied or compared. The application is never limited."),
        where=_is_going,
    ),
    "verify": Offer(
        request=PlainRequest,
        ask=_plainly(
            "Compare both sides of {name} while the application writes. A difference is a target fault."
        ),
        where=lambda status: status.host_error is None and status.state in IN_SYNC_STATES,
    ),
    "select-target": Offer(
        request=PlainRequest,
        ask=_plainly("Read {name} from {target}. Writes still go to both, and select-source leads back."),
    ),
    "select-source": Offer(
        request=PlainRequest,
        ask=_plainly("Read {name} from {source} again. Writes still go to both."),
    ),
    "commit": Offer(request=CommitRequest, ask=commit_question, is_final=True),
    "abort": Offer(request=PlainRequest, ask=abort_question, is_final=True),
    "cleanup": Offer(
        request=CleanupRequest,
        ask=lambda status: cleanup_question(status, disconnect=bool(status.connections)),
        is_final=True,
    ),
}


class Commanding:
    """Asks and commands with the operator's credentials."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def question(self, command: str, name: str) -> Question:
        """What to ask before a command on this migration, as it is now.

        Raises:
            Refusal: there is no such command or migration; or nobody answers.
        """
        offer = _offer(command)
        status = await self._status(_checked(name))
        return Question(
            command=command,
            migration=name,
            text=offer.ask(status),
            is_final=offer.is_final,
            is_allowed=is_offered(command, status),
            options=_options(command, status),
            afterwards=after_commit(status.source) if command == "commit" else "",
        )

    async def carry_out(self, command: str, name: str, options: Mapping[str, Any]) -> CommandReply:
        """Have a command carried out.

        Raises:
            Refusal: of the options, of state_control, of the host; or nobody answers.
        """
        offer = _offer(command)
        given = {**options, "operation_id": f"page-{secrets.token_hex(12)}"}
        request: object = decode(offer.request, orjson.dumps(given))
        subject = control_subject(command, _checked(name))
        return await self._requests.request(subject, request, CommandReply, timeout_s=COMMAND_TIMEOUT_S)

    async def offered(self, name: str) -> tuple[str, ...]:
        """The commands that make sense for a migration now.

        Raises:
            Refusal: there is no such migration; or nobody answers.
        """
        status = await self._status(_checked(name))
        return tuple(command for command in OFFERS if is_offered(command, status))

    async def _status(self, name: str) -> MigrationStatus:
        subject = control_subject("query", name)
        return await self._requests.request(
            subject, PlainRequest(), MigrationStatus, timeout_s=QUERY_TIMEOUT_S
        )


def is_offered(command: str, status: MigrationStatus) -> bool:
    """Whether the page offers a command for a migration that is so."""
    where = OFFERS[command].where
    return command in status.allowed if where is None else where(status)


def _options(command: str, status: MigrationStatus) -> tuple[dict[str, str], ...]:
    if command == "commit" and status.needs_verify:
        text = "Even though the last sync was partial and has not been verified since"
        return ({"name": "verified", "value": "false", "text": text},)
    if command == "cleanup" and status.connections:
        return (
            {"name": "disconnect", "value": "true", "text": "Disconnect the clients that are still there"},
        )
    return ()


def _offer(command: str) -> Offer:
    offer = OFFERS.get(command)
    if offer is None:
        raise Refusal(Code.UNKNOWN_COMMAND, f"The page has no command {command!r}.")
    return offer


def _checked(name: str) -> str:
    if not is_valid_name(name):
        raise Refusal(Code.BAD_NAME, f"{shortened(name)!r} is no name of a migration: {NAME_RULE}.")
    return name
