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

    Raises:
        Refusal: (`bad-request`) the id was used for another command.
    """
    kind = Kind.TOMBSTONE if trigger is Trigger.CLEANUP else Kind.STATE
    for entry in (ledger.operation(operation, Kind.STATE), ledger.operation(operation, Kind.TOMBSTONE)):
        if entry is None:
            continue
        record = entry.record
        if record.kind is not kind or (isinstance(record, StateRecord) and record.trigger != trigger):
            raise Refusal(Code.BAD_REQUEST, f"operation_id {operation!r} was used for another command.")
        return _reply(ledger, entry)
    return None


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
