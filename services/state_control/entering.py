"""Entering write cloning: the flag is durable before the host is asked, and goes again when the host says no.

A flag that stays set by mistake costs nothing in `setup`: the next start of the host clears it. A flag that is cleared
by mistake, while a host clones, could cost data. So it is cleared only where it is certain that nobody has entered.
"""

import logging
from dataclasses import replace

from services.state_control.hosts import Hosts, UnknownOutcome
from services.state_control.picture import Picture, picture_of
from shared.bus.interface import Journal, Requests
from shared.logs.about import about
from shared.messages.host import DecidedReply, EnterRequest
from shared.messages.recording import ClearFlagRequest, Origin, SetFlagRequest, StoredReply, record_subject
from shared.messages.standing import untold
from shared.messages.status import HostView
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State

_log = logging.getLogger(__name__)

RECORD_TIMEOUT_S = 10.0


class Entering:
    """The order of steps by which a migration leaves `setup`."""

    def __init__(self, *, journal: Journal, requests: Requests, hosts: Hosts) -> None:
        self._journal = journal
        self._requests = requests
        self._hosts = hosts

    async def enter(self, picture: Picture, operation: str) -> DecidedReply:
        """Set the flag, and have the host enter with it.

        Raises:
            Refusal: of fault_recording or of the host, with the flag cleared again; `host-away` with the flag left as
                it is, when nobody knows what became of it.
        """
        view = picture.require_open()
        name = picture.ledger.migration
        if not picture.is_recorded:
            raise Refusal(Code.BUSY, _unrecorded(picture, view))
        if view.is_entering:
            raise Refusal(Code.BUSY, f"Another sync of {name!r} is under way at its host.")
        if count := view.outstanding_target_requests:
            requests = "1 request" if count == 1 else f"{count} requests"
            message = f"{requests} of an earlier attempt may still land on the target of {name!r}."
            if picture.ledger.devices is not None and Side.TARGET in picture.ledger.devices.remote_sides:
                message += f" When its server has dropped the old connection, say so: `cutover vouch {name}`."
            raise Refusal(Code.OUTSTANDING_REQUESTS, message)
        origin = _origin(picture, view.tail_digest, operation)
        flag = await self._set_flag(origin, picture.ledger.tail.digest)
        try:
            return await self._hosts.command(
                origin.host,
                "enter",
                name,
                EnterRequest(
                    uuid=origin.uuid, attempt=origin.attempt, flag_digest=flag.digest, operation_id=operation
                ),
            )
        except UnknownOutcome:
            raise
        except Refusal as refusal:
            kept = await self._withdraw(origin, flag)
            raise Refusal(refusal.code, refusal.message + kept, refusal.allowed) from refusal

    async def _set_flag(self, origin: Origin, tail_digest: str) -> StoredReply:
        return await self._requests.request(
            record_subject("flag-set", origin.host, origin.migration),
            SetFlagRequest(origin=origin, tail_digest=tail_digest),
            StoredReply,
            timeout_s=RECORD_TIMEOUT_S,
        )

    async def _withdraw(self, origin: Origin, flag: StoredReply) -> str:
        """Clear the flag again, if it is certain that nobody cloned a write under it; else a sentence that says so."""
        try:
            await self._refuse_if_entered(origin)
            await self._requests.request(
                record_subject("flag-clear", origin.host, origin.migration),
                ClearFlagRequest(
                    origin=replace(origin, operation_id=f"{origin.operation_id}:withdrawn"),
                    set_digest=flag.digest,
                    tail_digest=flag.digest,
                ),
                StoredReply,
                timeout_s=RECORD_TIMEOUT_S,
            )
        except Refusal as refusal:
            _log.warning(
                "the error flag stays set: %s", refusal.message, extra=about(origin.migration, origin.attempt)
            )
            return f" The error flag stays set for now ({refusal.message})"
        return ""

    async def _refuse_if_entered(self, origin: Origin) -> None:
        """Another `sync` may have won. A host that is still in `setup` after it has refused this one is there to stay.

        It decides one thing at a time. An earlier `sync` that is not at it already cannot enter any more, because its flag is
        not the last one; a later one sets another flag first, and then the clear of this one is refused.
        """
        ledger = await self._journal.read(origin.migration)
        picture = picture_of(ledger, await self._hosts.check(origin.host, origin.migration))
        view = picture.require_open()
        if view.state is not State.SETUP or view.decision != origin.decision:
            raise Refusal(Code.STALE, f"{origin.migration!r} is in state {view.state} by now.")
        if view.is_entering:
            raise Refusal(Code.STALE, f"another sync of {origin.migration!r} is under way at its host.")


def _unrecorded(picture: Picture, view: HostView) -> str:
    """What the journal lacks of what the host has decided, and why."""
    name = picture.ledger.migration
    if view.journal_wait is not None:
        return untold(name, view.journal_wait)
    return f"The journal does not hold decision {view.decision} of {name!r} yet; ask again."


def _origin(picture: Picture, relies_on: str, operation: str) -> Origin:
    ledger = picture.ledger
    return Origin(
        migration=ledger.migration,
        uuid=str(ledger.uuid),
        attempt=ledger.attempt + 1,
        host=ledger.host,
        run=picture.run,
        decision=ledger.decision,
        operation_id=f"{operation}:flag",
        relies_on=relies_on,
    )
