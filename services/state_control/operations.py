"""Operation ids: what makes asking twice do once."""

import re
from collections.abc import Callable

from shared.messages.control import CommandReply
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import Kind, StateRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.table import Trigger

_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_RESERVED = ("startup:",)  # startup's own are recognised by it


def operation_id(asked: str | None, new_id: Callable[[], str]) -> str:
    """The id that was chosen by the asker, or a new one.

    Raises:
        Refusal: (`bad-request`) the chosen one is malformed.
    """
    if asked is None:
        return new_id()
    if not _ALLOWED.fullmatch(asked) or asked.startswith(_RESERVED):
        raise Refusal(
            Code.BAD_REQUEST,
            "operation_id: letters, digits and . _ : / - only, a letter or digit first, at most 100 characters, "
            "and not beginning with `startup:`.",
        )
    return asked


def done_before(ledger: Ledger, operation: str, trigger: Trigger) -> CommandReply | None:
    """The answer to a command whose decision is in the journal already.

    Where the migration was cleaned up since, that is still the answer, but to a `setup`. Once another has its name, what was
    asked of the first is not done, and neither is it to be: a command that comes late would be carried out on the wrong one.

    Raises:
        Refusal: (`bad-request`) the id was used for another command, or for an earlier migration of the name.
    """
    kind = Kind.TOMBSTONE if trigger is Trigger.CLEANUP else Kind.STATE
    for entry in (ledger.operation(operation, Kind.STATE), ledger.operation(operation, Kind.TOMBSTONE)):
        if entry is None:
            continue
        record = entry.record
        if record.kind is not kind or (isinstance(record, StateRecord) and record.trigger != trigger):
            raise Refusal(Code.BAD_REQUEST, f"operation_id {operation!r} was used for another command.")
        if trigger is Trigger.SETUP and not ledger.exists:
            raise _used_earlier(ledger, operation)
        return _reply(ledger, entry)
    if any(_is_decision(each, operation) for each in ledger.entries):
        raise _used_earlier(ledger, operation)
    return None


def _is_decision(entry: Entry, operation: str) -> bool:
    return entry.record.operation_id == operation and entry.record.kind in {Kind.STATE, Kind.TOMBSTONE}


def _used_earlier(ledger: Ledger, operation: str) -> Refusal:
    return Refusal(
        Code.BAD_REQUEST,
        f"operation_id {operation!r} was used for an earlier migration named {ledger.migration!r}, which has been cleaned up.",
    )


def _reply(ledger: Ledger, entry: Entry) -> CommandReply:
    record = entry.record
    state = record if isinstance(record, StateRecord) else None
    return CommandReply(
        name=record.migration,
        uuid=record.uuid,
        state=state.state if state else None,
        authority=state.authority if state else ledger.authority,
        attempt=record.attempt,
        decision=record.decision,
        message="This operation was done before.",
    )
