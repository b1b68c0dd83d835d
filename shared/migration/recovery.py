"""What may be done about a volume that stays closed: what is known of its two sides × what the operator may choose.

Pure, and exhaustive: for every combination each choice is safe, or asks first and says what may be lost, or is refused and
says why. Nothing here knows how a choice is carried out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType

from shared.migration.devices import Side
from shared.migration.states import IN_SYNC_STATES, Flag, State


class Standing(StrEnum):
    """What the host of the migration does with it."""

    OPEN = "open"
    CLOSED = "closed"  # it is up, and keeps the volume closed or does not know it
    WAITING = "waiting"  # it is up, and not admitted yet
    AWAY = "away"  # it does not answer


class Held(StrEnum):
    """What is known of who holds every acknowledged write."""

    SOURCE_ALONE = "source-alone"  # nothing was ever cloned
    SOURCE = "source"  # the target is an unfinished copy, or has failed
    BOTH = "both"  # in sync, and stopped cleanly
    BOTH_BUT_THE_LAST = "both-but-the-last"  # in sync; the target may lack what was under way at the stop
    TARGET = "target"  # the authority has moved: the source misses writes
    DISPUTED = "disputed"  # journal and witness do not agree, or a commit was asked for and nobody knows what became of it


class Choice(StrEnum):
    """What the operator may do."""

    TRY_AGAIN = "try-again"
    ADOPT_SOURCE = "adopt-source"
    ADOPT_TARGET = "adopt-target"
    GIVE_UP = "give-up"


class Consent(IntEnum):
    """What a choice needs; the larger of two counts."""

    SAFE = 0
    ASKS = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything that a choice is judged on. `proved`: the newest witness says so, and an intact journal agrees.

    `remote` are the sides that no kernel's lock fences; `in_doubt` those of them that the host waits for a word about, since
    requests of an earlier run may still land on them. `unusable` are the sides that the host that was asked cannot open, and why.
    """

    standing: Standing
    held: Held
    proved: bool
    remote: frozenset[Side] = frozenset()
    in_doubt: frozenset[Side] = frozenset()
    unusable: Mapping[Side, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """A choice, what it needs, and the reasons."""

    choice: Choice
    consent: Consent
    reason: str


def held_by(
    *, state: State | None, authority: Side, attempt: int, flag: Flag, target_fault: bool, ever_flagged: bool
) -> Held:
    """What one telling says of the two sides."""
    if authority is Side.TARGET:
        return Held.TARGET
    if attempt == 0 and not ever_flagged:
        return Held.SOURCE_ALONE
    if state not in IN_SYNC_STATES or target_fault:
        return Held.SOURCE
    return Held.BOTH if flag is Flag.CLEAR else Held.BOTH_BUT_THE_LAST


def authority_after(choice: Choice) -> Side | None:
    """The side that a choice names as the right one; None for a choice that names none."""
    return {Choice.ADOPT_SOURCE: Side.SOURCE, Choice.ADOPT_TARGET: Side.TARGET}.get(choice)


_Verdict = tuple[Consent, str]
_FREE: _Verdict = (Consent.SAFE, "")

_OPEN: _Verdict = (Consent.REFUSED, "its host has it open: there is nothing to recover")
_WAITING: _Verdict = (
    Consent.REFUSED,
    "its host is up, and asks for its admission by itself: mend what that waits for, and nothing is lost",
)
_BY_STANDING: Mapping[tuple[Standing, Choice], _Verdict] = MappingProxyType({
    **{(Standing.OPEN, choice): _OPEN for choice in Choice},
    **{(Standing.CLOSED, choice): _FREE for choice in Choice},
    **{(Standing.WAITING, choice): _WAITING for choice in Choice},
    (Standing.AWAY, Choice.TRY_AGAIN): (
        Consent.REFUSED, "its host does not answer: start it, and it is admitted if its records allow",
    ),
    (Standing.AWAY, Choice.ADOPT_SOURCE): (
        Consent.ASKS, "its host does not answer, and may still write to the devices: it must be off for good",
    ),
    (Standing.AWAY, Choice.ADOPT_TARGET): (
        Consent.ASKS, "its host does not answer, and may still write to the devices: it must be off for good",
    ),
    (Standing.AWAY, Choice.GIVE_UP): (
        Consent.ASKS, "its host does not answer, and may still serve it: it must be off for good",
    ),
})  # fmt: skip

_MOVED_UNSEEN = (
    "the newest witness is not there, and the host may have moved to the target without the journal knowing: then the source "
    "misses every write since"
)
_RECORDS_GO = "the records of who holds what go; the devices keep what they have"
_ANEW = "the records are judged anew, as at a start of the host"

_SOURCE_HAS_ALL: _Verdict = (
    Consent.SAFE,
    "the source holds every acknowledged write; the target counts for nothing",
)
_TARGET_HAS_ALL: _Verdict = (Consent.SAFE, "the target holds every acknowledged write")
_ON_ITS_OWN_RISK: _Verdict = (
    Consent.ASKS, "the records contradict each other: the side that is not named may hold writes that the other misses",
)  # fmt: skip

_BY_HELD: Mapping[tuple[Choice, Held, bool], _Verdict] = MappingProxyType({
    **{(Choice.TRY_AGAIN, held, proved): (Consent.SAFE, _ANEW) for held in Held for proved in (False, True)},
    **{(Choice.GIVE_UP, held, proved): (Consent.ASKS, _RECORDS_GO) for held in Held for proved in (False, True)},
    (Choice.ADOPT_SOURCE, Held.SOURCE_ALONE, True): _SOURCE_HAS_ALL,
    (Choice.ADOPT_SOURCE, Held.SOURCE_ALONE, False): (Consent.ASKS, _MOVED_UNSEEN),
    (Choice.ADOPT_SOURCE, Held.SOURCE, True): _SOURCE_HAS_ALL,
    (Choice.ADOPT_SOURCE, Held.SOURCE, False): (Consent.ASKS, _MOVED_UNSEEN),
    (Choice.ADOPT_SOURCE, Held.BOTH, True): _SOURCE_HAS_ALL,
    (Choice.ADOPT_SOURCE, Held.BOTH, False): (Consent.ASKS, _MOVED_UNSEEN),
    (Choice.ADOPT_SOURCE, Held.BOTH_BUT_THE_LAST, True): _SOURCE_HAS_ALL,
    (Choice.ADOPT_SOURCE, Held.BOTH_BUT_THE_LAST, False): (Consent.ASKS, _MOVED_UNSEEN),
    **{
        (Choice.ADOPT_SOURCE, Held.TARGET, proved): (
            Consent.REFUSED, "the authority has moved to the target: the source misses acknowledged writes",
        )
        for proved in (False, True)
    },
    **{(Choice.ADOPT_SOURCE, Held.DISPUTED, proved): _ON_ITS_OWN_RISK for proved in (False, True)},
    **{
        (Choice.ADOPT_TARGET, Held.SOURCE_ALONE, proved): (Consent.REFUSED, "nothing was ever copied to the target")
        for proved in (False, True)
    },
    (Choice.ADOPT_TARGET, Held.SOURCE, True): (
        Consent.REFUSED, "the target is an unfinished copy, or has failed: it lacks what the source holds",
    ),
    (Choice.ADOPT_TARGET, Held.SOURCE, False): (
        Consent.ASKS,
        "by the records the target is an unfinished copy, or has failed; only a host that went on without them could know better",
    ),
    (Choice.ADOPT_TARGET, Held.BOTH, True): _TARGET_HAS_ALL,
    (Choice.ADOPT_TARGET, Held.BOTH, False): (
        Consent.ASKS, "the newest witness is not there: the target may have failed since, or lack the last writes",
    ),
    **{
        (Choice.ADOPT_TARGET, Held.BOTH_BUT_THE_LAST, proved): (
            Consent.ASKS, "the target may lack writes that were under way, or not yet on disk, when the host stopped",
        )
        for proved in (False, True)
    },
    **{(Choice.ADOPT_TARGET, Held.TARGET, proved): _TARGET_HAS_ALL for proved in (False, True)},
    **{(Choice.ADOPT_TARGET, Held.DISPUTED, proved): _ON_ITS_OWN_RISK for proved in (False, True)},
})  # fmt: skip


_WAITS_FOR_WORD: _Verdict = (
    Consent.REFUSED,
    "requests of an earlier run may still land on it: `cutover vouch` is the word that it waits for, and opens it",
)
_FORGOTTEN = (
    "requests may still land on its remote devices, and nobody will know of them any more: nothing may be set up on these "
    "before their servers have dropped the old connections"
)
_LEFT_AT_SERVERS: _Verdict = (Consent.ASKS, _FORGOTTEN)


def _by_fences(choice: Choice, known: Known) -> _Verdict:
    """What is left on its way to remote devices must not be forgotten (rule R6)."""
    if choice is Choice.GIVE_UP and known.remote:
        return _LEFT_AT_SERVERS
    return _WAITS_FOR_WORD if authority_after(choice) in known.in_doubt else _FREE


def _by_device(choice: Choice, known: Known) -> _Verdict:
    """Whoever names a side that cannot be opened finds nothing to serve afterwards."""
    side = authority_after(choice)
    why = known.unusable.get(side) if side is not None else None
    return _FREE if why is None else (Consent.REFUSED, why)


def offer(choice: Choice, known: Known) -> Offer:
    """What a choice needs: the strictest verdict counts, and the reasons of all that are as strict are told."""
    verdicts = (
        _BY_STANDING[known.standing, choice],
        _BY_HELD[choice, known.held, known.proved],
        _by_fences(choice, known),
        _by_device(choice, known),
    )
    consent = max(consent for consent, _reason in verdicts)
    reasons = [reason for needed, reason in verdicts if reason and needed is consent]
    return Offer(choice, consent, "; ".join(reasons))


def offers(known: Known) -> tuple[Offer, ...]:
    """Every choice."""
    return tuple(offer(choice, known) for choice in Choice)
