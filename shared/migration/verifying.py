"""What `verify` asks of a migration, and what `commit` asks of `verify`. Pure."""

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import IN_SYNC_STATES
from shared.migration.table import Facts, allowed_commands


def require_verifiable(facts: Facts) -> None:
    """Refuse to compare sides that need not be the same.

    Raises:
        Refusal: (`not-allowed`) they are not in sync, or a side misses writes.
    """
    if facts.state not in IN_SYNC_STATES:
        because = "source and target are not in sync"
    elif facts.authority is not Side.SOURCE:
        because = "the source has failed and misses writes"
    elif facts.target_faults:
        because = "the target has failed in this attempt"
    else:
        return
    allowed = allowed_commands(facts)
    choices = f"allowed now: {', '.join(allowed)}" if allowed else "no command is allowed now"
    states = " and ".join(sorted(IN_SYNC_STATES))
    raise Refusal(
        Code.NOT_ALLOWED,
        f"verify is refused in state {facts.state}: {because}; it is for {states}, while the source is the authority; {choices}.",
        allowed,
    )


def refuse_unverified(
    name: str, *, verified_at: str | None, needs_verify: bool, demanded: bool | None
) -> None:
    """Refuse a commit that wants a completed `verify` of this attempt, where there is none.

    A partial resync wants one (`needs_verify`). `demanded` is what the operator says: True wants one in any case, False in
    none. Not for an authority that has moved to the target: there is nothing left to compare with.

    Raises:
        Refusal: `not-verified`.
    """
    if verified_at is not None or demanded is False or not (demanded or needs_verify):
        return
    because = "no verify of this attempt has been completed"
    if not demanded:
        because = f"the last sync copied only what could differ, and {because}"
    message = (
        f"commit of {name} is refused: {because}. Verify first, or say that none is wanted (verified: false)."
    )
    raise Refusal(Code.NOT_VERIFIED, message, ("verify",))
