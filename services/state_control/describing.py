"""What is known of a closed volume, in words for people and scripts."""

from functools import partial

from services.state_control.knowledge import Knowledge
from services.state_control.unread import NO_CHOICE
from shared.messages.recovery import ChoiceView, RecoveryReply, SideKnown
from shared.migration.devices import Side
from shared.migration.recovery import Choice, Consent, Held, Offer, authority_after, offers

_WORDS = {Consent.SAFE: "safe", Consent.ASKS: "asks", Consent.REFUSED: "refused"}

_HOLDS: dict[Held, dict[Side, str]] = {
    Held.SOURCE_ALONE: {
        Side.SOURCE: "every acknowledged write",
        Side.TARGET: "nothing: it was never copied to",
    },
    Held.SOURCE: {
        Side.SOURCE: "every acknowledged write",
        Side.TARGET: "an unfinished copy, or one that has failed",
    },
    Held.BOTH: {Side.SOURCE: "every acknowledged write", Side.TARGET: "the same: it was stopped in sync"},
    Held.BOTH_BUT_THE_LAST: {
        Side.SOURCE: "every acknowledged write",
        Side.TARGET: "a copy in sync, which may lack the last writes before the stop",
    },
    Held.TARGET: {
        Side.SOURCE: "what it had when the authority moved: it misses writes",
        Side.TARGET: "every acknowledged write",
    },
    Held.DISPUTED: {
        Side.SOURCE: "not known: the records contradict each other",
        Side.TARGET: "not known either",
    },
}


def sides_known(knowledge: Knowledge) -> tuple[SideKnown, ...]:
    """Both sides; none where nobody knows the devices."""
    devices, examined = knowledge.devices, knowledge.examined
    if devices is None:
        return ()
    by_the_records = "" if knowledge.is_proved else " (by the records that there are)"
    return tuple(
        SideKnown(
            side=side,
            device=identity.name,
            finding=finding,
            holds=_HOLDS[knowledge.held][side] + by_the_records,
        )
        for side, identity, finding in (
            (Side.SOURCE, devices.source, examined.source if examined is not None else None),
            (Side.TARGET, devices.target, examined.target if examined is not None else None),
        )
    )


def choice_views(knowledge: Knowledge, host: str | None) -> tuple[ChoiceView, ...]:
    """Every choice, with its command line."""
    name = knowledge.ledger.migration
    return tuple(
        ChoiceView(
            choice=made.choice,
            consent=_WORDS[made.consent],
            reason=made.reason,
            command=_command(made.choice, name, host),
        )
        for made in map(partial(_as_far_as_recorded, knowledge), offers(knowledge.known))
    )


def _as_far_as_recorded(knowledge: Knowledge, made: Offer) -> Offer:
    """What it is without a journal that can be read: refused."""
    if not knowledge.unread or made.consent is Consent.REFUSED:
        return made
    return Offer(made.choice, Consent.REFUSED, NO_CHOICE)


def reply_of(
    knowledge: Knowledge, sides: tuple[SideKnown, ...], choices: tuple[ChoiceView, ...]
) -> RecoveryReply:
    """The answer to `recover`."""
    return RecoveryReply(
        name=knowledge.ledger.migration,
        uuid=knowledge.uuid,
        host=knowledge.host,
        recorded_host=knowledge.ledger.host,
        standing=knowledge.standing,
        why=knowledge.why_closed,
        proved=knowledge.is_proved,
        held=knowledge.held,
        tellings=knowledge.tellings(),
        sides=sides,
        choices=choices,
        warnings=knowledge.warnings,
    )


def _command(choice: Choice, name: str, host: str | None) -> str:
    authority = authority_after(choice)
    if authority is None:
        return f"cutover recover {name} --{choice}"
    return f"cutover adopt {name} --authority {authority}" + (f" --host {host}" if host else "")
