"""Records in a few words, for people who read along. Pure; nothing is decided on these."""

from shared.migration.records import (
    AnyRecord,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)


def words_of(record: AnyRecord) -> str:
    """What a record tells, as the end of a sentence."""
    match record:
        case StateRecord():
            detail = f" ({record.detail})" if record.detail else ""
            return f"{record.state} by {record.trigger}, authority {record.authority}{detail}"
        case IntentRecord():
            return "a commit is intended"
        case RepairRecord():
            return f"the journal is repaired, and goes on at {record.state}: {record.reason}"
        case TombstoneRecord():
            return f"{'given' if record.given_up else 'cleaned'} up, was {record.state}"
        case FlagSetRecord():
            return "the error flag is set"
        case FlagClearRecord():
            return "the error flag is clear"
        case FaultRecord():
            return f"a fault of the {record.side} in {record.state}: {fault_words(record.operation, record.cause, record.offset)}"


def fault_words(operation: str, cause: str, offset: int | None) -> str:
    """What a device did not do, and why."""
    place = "" if offset is None else f" at {offset}"
    return f"{operation}{place}: {cause}"
