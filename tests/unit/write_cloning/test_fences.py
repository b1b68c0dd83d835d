"""What no kernel fences: which remote sides the witness names, and when a volume stays closed because of them."""

import pytest

from services.write_cloning.fences import (
    refuse_in_doubt,
    refuse_other_doubt,
    sides_in_doubt,
    unfenced_sides,
    unfenced_when_admitted,
)
from services.write_cloning.witness import Witness
from shared.messages.admission import Admission
from shared.messages.host import HostCommand, doubt_of
from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, State

NEITHER, BOTH = frozenset[Side](), frozenset(Side)
SUBSETS = (NEITHER, frozenset({Side.SOURCE}), frozenset({Side.TARGET}), BOTH)


def _identity(side: Side, *, is_remote: bool) -> DeviceIdentity:
    kind = DeviceKind.REMOTE if is_remote else DeviceKind.FILE
    return DeviceIdentity(name=f"the {side}", kind=kind, token=side, size_bytes=1 << 20)


def _pair(remote: frozenset[Side]) -> DevicePair:
    return DevicePair(**{side: _identity(side, is_remote=side in remote) for side in Side})


def _admission(state: State, authority: Side, remote: frozenset[Side]) -> Admission:
    return Admission(
        migration="vol1", uuid="u", label="any", state=state, authority=authority, attempt=1, decision=2,
        tail_digest="", flag_digest="", source_faults=0, target_faults=0, devices=_pair(remote), reason="",
    )  # fmt: skip


def _witness(remote: frozenset[Side], unfenced: frozenset[Side]) -> Witness:
    return Witness(
        migration="vol1", uuid="u", host="h1", run=1, state=State.SETUP, decision=1, operation_id="o", trigger="setup",
        devices=_pair(remote), unfenced=tuple(unfenced),
    )  # fmt: skip


def _used(state: State, authority: Side) -> frozenset[Side]:
    if authority is Side.TARGET:
        return frozenset({Side.TARGET})
    return BOTH if state in CLONING_STATES else frozenset({Side.SOURCE})


@pytest.mark.parametrize("remote", SUBSETS)
@pytest.mark.parametrize("authority", Side)
@pytest.mark.parametrize("state", State)
def test_sides_that_get_writes_and_have_no_lock_are_named(
    state: State, authority: Side, remote: frozenset[Side]
) -> None:
    assert set(unfenced_sides(_pair(remote), state, authority)) == _used(state, authority) & remote


@pytest.mark.parametrize("left", SUBSETS)
@pytest.mark.parametrize("remote", SUBSETS)
@pytest.mark.parametrize("authority", Side)
@pytest.mark.parametrize("state", State)
def test_volume_is_closed_exactly_when_a_side_that_it_needs_is_in_doubt(
    state: State, authority: Side, remote: frozenset[Side], left: frozenset[Side]
) -> None:
    admission = _admission(state, authority, remote)
    in_doubt = sides_in_doubt(admission.devices, _witness(remote, left & remote))
    needed_in_doubt = _used(state, authority) & remote & left
    if not needed_in_doubt:
        refuse_in_doubt(admission, in_doubt)
        named = set(unfenced_when_admitted(admission, in_doubt))
        assert named == (_used(state, authority) | left) & remote, "a doubt was forgotten, or one made up"
        return
    with pytest.raises(Refusal) as refused:
        refuse_in_doubt(admission, in_doubt)
    assert refused.value.code is Code.OUTSTANDING_REQUESTS
    assert "cutover vouch vol1" in refused.value.message
    assert all(f"the {side}" in refused.value.message for side in needed_in_doubt)


@pytest.mark.parametrize("remote", SUBSETS)
@pytest.mark.parametrize("authority", Side)
@pytest.mark.parametrize("state", State)
def test_without_a_witness_every_remote_side_is_in_doubt(
    state: State, authority: Side, remote: frozenset[Side]
) -> None:
    admission = _admission(state, authority, remote)
    in_doubt = sides_in_doubt(admission.devices, None)
    assert set(in_doubt) == remote
    assert set(unfenced_when_admitted(admission, in_doubt)) == remote
    if _used(state, authority) & remote:
        with pytest.raises(Refusal):
            refuse_in_doubt(admission, in_doubt)
    else:
        refuse_in_doubt(admission, in_doubt)


def test_operators_word_ends_every_doubt() -> None:
    assert unfenced_when_admitted(_admission(State.SETUP, Side.SOURCE, BOTH), ()) == (Side.SOURCE,)


@pytest.mark.parametrize(
    ("given_for", "is_believed"),
    [
        (None, True),
        ("u.7.12.1", True),
        ("u.7.12.0", False),
        ("u.7.11.1", False),
        ("v.7.12.1", False),
        ("u.7", False),
        ("", False),
    ],
)
def test_word_is_believed_for_the_doubt_that_it_was_given_for(
    given_for: str | None, is_believed: bool
) -> None:
    request = HostCommand(uuid="u", operation_id="o", doubt=given_for)
    if is_believed:
        refuse_other_doubt("vol1", request, doubt_of("u", 7, 12, 1))
        return
    with pytest.raises(Refusal) as refused:
        refuse_other_doubt("vol1", request, doubt_of("u", 7, 12, 1))
    assert refused.value.code is Code.STALE
