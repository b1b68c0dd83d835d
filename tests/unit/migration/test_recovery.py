"""What may be done about a closed volume, for everything that can be known of it."""

from dataclasses import replace
from itertools import product

import pytest

from shared.migration.devices import Side
from shared.migration.recovery import Choice, Consent, Held, Known, Standing, held_by, offer, offers
from shared.migration.states import Flag, State

SIDES = (frozenset[Side](), frozenset({Side.SOURCE}), frozenset({Side.TARGET}), frozenset(Side))
EVERYTHING = [
    Known(standing=standing, held=held, proved=proved, remote=remote, in_doubt=in_doubt)
    for standing, held, proved, remote, in_doubt in product(Standing, Held, (False, True), SIDES, SIDES)
    if in_doubt <= remote
]
ADOPTIONS = {Choice.ADOPT_SOURCE: Held.TARGET, Choice.ADOPT_TARGET: Held.SOURCE}

# The way out for a host that waits for its admission is what it waits for.
NOTHING_TO_CHOOSE = frozenset({Standing.OPEN, Standing.WAITING})


def _name(known: Known) -> str:
    """The same in every process; the text of a set is not."""
    sides = ("+".join(sorted(each)) or "none" for each in (known.remote, known.in_doubt))
    return "-".join((known.standing, known.held, f"proved={known.proved}", *sides))


@pytest.mark.parametrize("known", EVERYTHING, ids=_name)
def test_every_choice_is_judged_and_says_why(known: Known) -> None:
    made = offers(known)
    assert [each.choice for each in made] == list(Choice)
    assert all(each.reason for each in made)


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("known", EVERYTHING, ids=_name)
def test_what_could_lose_a_write_is_never_safe(known: Known, choice: Choice) -> None:
    """An adoption is safe only of a side that is known to hold everything, on a host that is known not to write."""
    if offer(choice, known).consent is not Consent.SAFE or choice is Choice.TRY_AGAIN:
        return
    assert choice in ADOPTIONS
    assert known.standing is Standing.CLOSED
    sides_with_all = {
        Choice.ADOPT_SOURCE: {Held.SOURCE_ALONE, Held.SOURCE, Held.BOTH, Held.BOTH_BUT_THE_LAST},
        Choice.ADOPT_TARGET: {Held.BOTH, Held.TARGET},
    }
    assert known.held in sides_with_all[choice]
    assert known.proved or (choice, known.held) == (Choice.ADOPT_TARGET, Held.TARGET)


@pytest.mark.parametrize("known", EVERYTHING, ids=_name)
def test_a_side_that_is_known_to_miss_writes_is_refused(known: Known) -> None:
    if known.held is Held.TARGET:
        assert offer(Choice.ADOPT_SOURCE, known).consent is Consent.REFUSED
    if known.held is Held.SOURCE_ALONE or (known.held is Held.SOURCE and known.proved):
        assert offer(Choice.ADOPT_TARGET, known).consent is Consent.REFUSED


@pytest.mark.parametrize("known", EVERYTHING, ids=_name)
def test_requests_on_their_way_to_remote_devices_are_not_forgotten(known: Known) -> None:
    for side, choice in ((Side.SOURCE, Choice.ADOPT_SOURCE), (Side.TARGET, Choice.ADOPT_TARGET)):
        if side in known.in_doubt:
            assert offer(choice, known).consent is Consent.REFUSED, "the word that it waits for is another"
    if known.remote and known.standing not in NOTHING_TO_CHOOSE:
        assert "dropped the old connections" in offer(Choice.GIVE_UP, known).reason


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("known", EVERYTHING, ids=_name)
def test_a_side_that_cannot_be_opened_is_not_offered(known: Known, side: Side) -> None:
    """What was called safe was refused when it was chosen: there was nothing to serve."""
    without = replace(known, unusable={side: "it is gone"})
    chosen = Choice.ADOPT_SOURCE if side is Side.SOURCE else Choice.ADOPT_TARGET
    for before, made in zip(offers(known), offers(without), strict=True):
        if made.choice is chosen:
            assert made.consent is Consent.REFUSED
            assert "it is gone" in made.reason
        else:
            assert made == before


@pytest.mark.parametrize(
    "known", [each for each in EVERYTHING if each.standing in NOTHING_TO_CHOOSE], ids=_name
)
def test_a_volume_that_is_open_or_whose_host_waits_for_admission_needs_no_recovery(known: Known) -> None:
    assert {each.consent for each in offers(known)} == {Consent.REFUSED}


@pytest.mark.parametrize(
    "known", [each for each in EVERYTHING if each.standing not in NOTHING_TO_CHOOSE], ids=_name
)
def test_there_always_is_a_way_out(known: Known) -> None:
    assert any(each.consent is not Consent.REFUSED for each in offers(known))
    assert offer(Choice.GIVE_UP, known).consent is Consent.ASKS


@pytest.mark.parametrize(
    ("state", "authority", "attempt", "flag", "target_fault", "ever_flagged"),
    list(product(State, Side, (0, 1), Flag, (False, True), (False, True))),
)
def test_what_a_telling_says_of_the_sides(
    state: State, authority: Side, attempt: int, flag: Flag, *, target_fault: bool, ever_flagged: bool
) -> None:
    held = held_by(
        state=state,
        authority=authority,
        attempt=attempt,
        flag=flag,
        target_fault=target_fault,
        ever_flagged=ever_flagged,
    )
    assert (held is Held.TARGET) == (authority is Side.TARGET)
    if held is Held.SOURCE_ALONE:
        assert (attempt, ever_flagged) == (0, False)
    if held in {Held.BOTH, Held.BOTH_BUT_THE_LAST}:
        assert state in {State.SOURCE_SELECTED, State.TARGET_SELECTED}
        assert not target_fault
    if held is Held.BOTH:
        assert flag is Flag.CLEAR, "that a stop was clean is proved, never assumed"
