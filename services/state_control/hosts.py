"""Asking hosts: a short question first, so that a host that is away or hangs is known for it at once.

Only then a command, which may take long because devices are flushed. What is not known is never told as a no.
"""

import asyncio
from typing import TypeVar

from shared.bus.interface import Discovery, Requests, Unanswered
from shared.messages.control import PlainRequest
from shared.messages.host import (
    HOST_SERVICE_NAME,
    WAITS_FOR_ADMISSION,
    DecidedReply,
    HostStatusReply,
    TryAgainRequest,
    WaitingReply,
    host_status_subject,
    host_subject,
    host_waiting_subject,
)
from shared.messages.recovery import ExamineReply, ExamineRequest
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Code, Refusal
from shared.plain import shortened

CHECK_TIMEOUT_S = 2.5
COMMAND_TIMEOUT_S = 60.0
WATCH_INTERVAL_S = 1.0
DISCOVERY_TIMEOUT_S = 0.5
WAITING_TIMEOUT_S = 0.5  # comes after that of the check: whoever asks us waits for both

Reply = TypeVar("Reply")


class UnknownOutcome(Refusal):
    """The host was asked and has not answered: the command may or may not be carried out."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            Code.HOST_AWAY,
            f"Host {host!r} was asked, and whether it has done it is not known: {why} Look at the migration first.",
        )


class Hosts:
    """All hosts, as far as they answer."""

    def __init__(self, requests: Requests, discovery: Discovery) -> None:
        self._requests = requests
        self._discovery = discovery

    async def check(self, host: str, migration: str) -> HostStatusReply:
        """What a host says of one migration.

        Raises:
            Refusal: (`host-away`) nobody answers for it, or not in time.
        """
        return await self._status(host, host_subject(host, "status", migration))

    async def check_all(self, host: str) -> HostStatusReply:
        """What a host says of all its migrations; raises as `check` does."""
        return await self._status(host, host_status_subject(host))

    async def waiting(self, host: str) -> str | None:
        """Why a host that is up is not admitted yet, as a sentence; None where no host of that name waits for it."""
        try:
            reply = await self._requests.request(
                host_waiting_subject(host), PlainRequest(), WaitingReply, timeout_s=WAITING_TIMEOUT_S
            )
        except Refusal:  # nobody is there, or he cannot be asked: then he is away, which was said already
            return None
        return f"Host {host!r} {WAITS_FOR_ADMISSION}: {reply.why or 'it has no answer so far.'}"

    async def examine(self, host: str, migration: str, request: ExamineRequest) -> ExamineReply:
        """What a host finds of a migration that it does not have open.

        Raises:
            Refusal: `host-away`; `not-allowed` when it has it open.
        """
        try:
            return await self._requests.request(
                host_subject(host, "examine", migration), request, ExamineReply, timeout_s=COMMAND_TIMEOUT_S
            )
        except Refusal as refusal:
            raise _away_if_unserved(host, refusal) from refusal

    async def try_again(self, host: str, migration: str, request: TryAgainRequest) -> HostStatusReply:
        """Have a host ask for the admission of one that it does not have open.

        Raises:
            UnknownOutcome: it has not answered in time.
            Refusal: there was no answer to its question, and it is as before.
        """
        subject = host_subject(host, "try-again", migration)
        try:
            return await self._requests.request(
                subject, request, HostStatusReply, timeout_s=COMMAND_TIMEOUT_S
            )
        except Unanswered as unanswered:
            raise UnknownOutcome(host, unanswered.message) from unanswered
        except Refusal as refusal:
            raise _away_if_unserved(host, refusal) from refusal

    async def command(self, host: str, command: str, migration: str, payload: object) -> DecidedReply:
        """Have a command carried out by a host that has just answered.

        Raises:
            UnknownOutcome: it has not answered in time, or has gone away or begun anew since it was asked.
            Refusal: its own; `host-away` when it went away before. With these nothing was decided.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(host))
                decided = await self._asked(host, host_subject(host, command, migration), payload)
                watching.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the answer's, or else the watch's: one cancels the other
        return decided

    async def _asked(self, host: str, subject: str, payload: object) -> DecidedReply:
        try:
            return await self._requests.request(subject, payload, DecidedReply, timeout_s=COMMAND_TIMEOUT_S)
        except Unanswered as unanswered:
            raise UnknownOutcome(host, unanswered.message) from unanswered
        except Refusal as refusal:
            raise _away_if_unserved(host, refusal) from refusal

    async def _watch(self, host: str) -> None:
        """Raise `UnknownOutcome` once a host that has been asked cannot answer any more; endless otherwise."""
        run = None
        while True:
            try:
                status = await self.check_all(host)
            except Refusal as refusal:
                if refusal.code is Code.HOST_AWAY:
                    raise UnknownOutcome(host, refusal.message) from refusal
            else:
                run = run or status.run
                if status.run != run:
                    raise UnknownOutcome(host, "It was started anew meanwhile.")
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def choose(self, wanted: str | None) -> str:
        """The host that is wanted, or the only one there is.

        Raises:
            Refusal: `bad-name`; `host-unknown` naming the hosts that are up.
        """
        if wanted is not None and not is_valid_name(wanted):
            raise Refusal(Code.BAD_NAME, f"{shortened(wanted)!r} is no name of a host: {NAME_RULE}.")
        if wanted is not None and await self._is_up(wanted):
            return wanted
        up = await self.names()
        named = f"the hosts that are up are: {', '.join(up)}" if up else "no host is up"
        if wanted is not None:
            raise Refusal(Code.HOST_UNKNOWN, f"Host {wanted!r} does not answer; {named}.")
        if len(up) != 1:
            raise Refusal(Code.HOST_UNKNOWN, f"Which host is meant is not clear; {named}.")
        return up[0]

    async def names(self) -> list[str]:
        """The hosts that are up."""
        found = await self._discovery.instances(HOST_SERVICE_NAME, timeout_s=DISCOVERY_TIMEOUT_S)
        return sorted({name for each in found if (name := each.metadata.get("host"))})

    async def _is_up(self, host: str) -> bool:
        try:
            await self.check_all(host)
        except Refusal as refusal:
            if refusal.code is not Code.HOST_AWAY:
                raise
            return False
        return True

    async def _status(self, host: str, subject: str) -> HostStatusReply:
        try:
            return await self._requests.request(
                subject, PlainRequest(), HostStatusReply, timeout_s=CHECK_TIMEOUT_S
            )
        except Unanswered as unanswered:  # also where nobody is asked and somebody listens in
            why = await self.waiting(host) or f"Host {host!r} does not answer within {CHECK_TIMEOUT_S:g} s."
            raise Refusal(Code.HOST_AWAY, why) from unanswered
        except Refusal as refusal:
            waits = await self.waiting(host) if refusal.code is Code.SERVICE_AWAY else None
            if waits is not None:
                raise Refusal(Code.HOST_AWAY, waits) from refusal
            raise _away_if_unserved(host, refusal) from refusal


def _away_if_unserved(host: str, refusal: Refusal) -> Refusal:
    if refusal.code is Code.SERVICE_AWAY:
        return Refusal(
            Code.HOST_AWAY,
            f"Host {host!r} is away: its write cloning service does not run, or NATS refuses it.",
        )
    return refusal
