"""What no kernel fences: remote devices, at whose servers requests of an earlier connection may be left behind (rule R6).

A connection that was closed with everything answered has left nothing behind. Any other may have, and nobody can be asked
(`devices.remote`). So the witness names the sides that may have been given writes over a connection that is not known to be
closed: it is written before the first of them, and again once the connection is closed. Who finds a side named there, after
a kill, after a power cut, or in a copy of the witness on another host while the first still runs, does not use that device
before an operator vouches that the old connections are gone:

- a side that the migration reads and writes in its state: the volume stays closed;
- one that it does not use, a target that waits in `setup` or a source that was left: the volume opens, and both `sync` and
  `cleanup`, after which nobody would know of it any more, are refused.

Pure; what is done about it is the host's and the migration's business.
"""

from collections.abc import Sequence

from services.write_cloning.witness import Witness
from shared.messages.admission import Admission
from shared.messages.host import HostCommand
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, State


def unfenced_sides(devices: DevicePair, state: State, authority: Side) -> tuple[Side, ...]:
    """The sides without a lock of the kernel's that get writes in a state."""
    if authority is Side.TARGET:
        used: tuple[Side, ...] = (Side.TARGET,)
    else:
        used = (Side.SOURCE, Side.TARGET) if state in CLONING_STATES else (Side.SOURCE,)
    return tuple(side for side in used if side in devices.remote_sides)


def sides_in_doubt(devices: DevicePair, earlier: Witness | None) -> tuple[Side, ...]:
    """The sides on which requests of an earlier run may still land, by the witness that it left.

    Without a witness nobody knows how the last run ended, nor what it used before: then that is every remote side.
    """
    return devices.remote_sides if earlier is None else earlier.unfenced


def unfenced_when_admitted(admission: Admission, in_doubt: Sequence[Side]) -> tuple[Side, ...]:
    """What the witness names from an admission on: the sides that are about to be used, and those still in doubt."""
    used = unfenced_sides(admission.devices, admission.state, admission.authority)
    return (*used, *(side for side in in_doubt if side not in used))


def refuse_in_doubt(admission: Admission, in_doubt: Sequence[Side]) -> None:
    """Refuse to open a volume on a device on which requests of an earlier run may still land.

    Raises:
        Refusal: (`outstanding-requests`) naming the devices, and what would admit it.
    """
    used = unfenced_sides(admission.devices, admission.state, admission.authority)
    if needed := [side for side in used if side in in_doubt]:
        names = " and ".join(admission.devices.of(side).name for side in needed)
        raise Refusal(
            Code.OUTSTANDING_REQUESTS,
            f"Requests of an earlier run may still land on {names}: the connection was not closed by it. "
            f"{how_to_vouch(admission.migration)}",
        )


def refuse_other_doubt(migration: str, request: HostCommand, doubt: str) -> None:
    """Refuse a word that was given for an earlier doubt: since then connections were opened, and may have been left.

    Raises:
        Refusal: `stale`.
    """
    if request.doubt not in {None, doubt}:
        raise Refusal(
            Code.STALE,
            f"The word was given for another doubt about {migration} ({request.doubt}; it is {doubt} now). Look at it again "
            f"(`query`), then at the server. {how_to_vouch(migration)}",
        )


def how_to_vouch(migration: str) -> str:
    """What an operator can do about a connection that nobody knows the end of."""
    return (
        "When the server has dropped the old connection, so that nothing sent over it can land any more, say so: "
        f"`cutover vouch {migration}`."
    )
