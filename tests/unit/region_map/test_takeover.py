"""A map narrows the next resync only where the last attempt ended by an unclean stop and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from services.write_cloning.map_takeover import taken_over, why_full
from services.write_cloning.region_map import empty_bits, encode_map
from services.write_cloning.volume.marks import CLEAN, DUE, HOT
from services.write_cloning.witness import Witness
from shared.messages.admission import Admission
from shared.messages.recording import FaultReport
from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, State
from tests.support.records import AT, DEVICES, HOST, NAME, UUID
from tests.support.volatile import PromptMaps, StoredMap

REGION = 1 << 16
REGIONS = DEVICES.source.size_bytes // REGION
WITNESS = Witness(
    migration=NAME, uuid=UUID, host=HOST, run=3, state=State.SOURCE_SELECTED, attempt=2, decision=5,
    operation_id="o", trigger="copied", flag_digest="f", devices=DEVICES, region_map="3-2",
)  # fmt: skip
UNCLEAN = Admission(
    migration=NAME, uuid=UUID, label="unclean", state=State.SETUP, authority=Side.SOURCE, attempt=2, decision=6,
    tail_digest="t", flag_digest="", source_faults=0, target_faults=0, devices=DEVICES, reason="",
)  # fmt: skip
FAULT = FaultReport(
    operation_id="x", side=Side.TARGET, state=State.SOURCE_SELECTED, attempt=2, operation="write", cause="EIO",
    detected_at=AT,
)  # fmt: skip


def test_unclean_stop_alone_leaves_the_map_in_force() -> None:
    assert why_full(UNCLEAN, WITNESS) == ""


def test_crash_during_that_startup_changes_nothing() -> None:
    """The error transition is recorded, the witness not yet written: the next startup finds `setup`."""
    assert why_full(replace(UNCLEAN, label="idle"), WITNESS) == ""


def test_restart_in_setup_goes_on_with_the_map() -> None:
    assert why_full(replace(UNCLEAN, label="idle"), replace(WITNESS, state=State.SETUP)) == ""


@pytest.mark.parametrize("state", sorted(CLONING_STATES))
def test_clean_restart_goes_on_with_the_map(state: State) -> None:
    admission = replace(UNCLEAN, label="resume", state=state, flag_digest="g")
    assert why_full(admission, replace(WITNESS, state=state)) == ""


@pytest.mark.parametrize(
    ("admission", "witness", "words"),
    [
        ({}, {"faults": (FAULT,)}, "a device failed"),
        ({"source_faults": 1}, {}, "a device failed"),
        ({"target_faults": 1}, {}, "a device failed"),
        ({"attempt": 3}, {}, "of attempt 2"),
        ({"authority": Side.TARGET, "state": State.TARGET_SELECTED}, {}, "the target has taken over"),
        ({"authority": Side.TARGET, "state": State.COMMITTED}, {}, "the target has taken over"),
        ({}, {"region_map": "", "full_because": "the last attempt was aborted"}, "aborted"),
        ({}, {"region_map": ""}, "nothing has been copied yet"),
    ],
)
def test_anything_else_means_that_all_is_copied(
    admission: dict[str, Any], witness: dict[str, Any], words: str
) -> None:
    assert words in why_full(replace(UNCLEAN, **admission), replace(WITNESS, **witness))


def test_lost_witness_means_that_all_is_copied() -> None:
    assert "witness was lost" in why_full(UNCLEAN, None)


# ------------------------------------------------------------------ with the file


async def _maps(**changes: Any) -> PromptMaps:
    """A host's maps, with the one that the witness trusts: region 1 may differ."""
    maps = PromptMaps()
    before = await taken_over(
        replace(UNCLEAN, state=State.SYNCING, flag_digest="f"),
        None,
        files=maps,
        region_size_bytes=REGION,
        run=3,
    )
    await before.release()
    bits = empty_bits(REGIONS)
    bits[0] = 2
    header = replace(before._header, **changes)  # type: ignore[type-var]
    maps.files[f"{NAME}.3-2"] = StoredMap(encode_map(header, bits))  # type: ignore[arg-type]
    return maps


async def _states(
    maps: PromptMaps, admission: Admission, witness: Witness = WITNESS
) -> tuple[list[int], str, str]:
    keeper = await taken_over(admission, witness, files=maps, region_size_bytes=REGION, run=4)
    return list(keeper.marks.states), keeper.full_because, keeper.map_id


async def test_what_may_differ_is_due_after_an_unclean_stop() -> None:
    states, because, map_id = await _states(await _maps(), UNCLEAN)
    assert (states, because, map_id) == ([CLEAN, DUE] + [CLEAN] * (REGIONS - 2), "", "4-2")


async def test_a_new_map_stands_beside_the_old_one_until_the_witness_names_it() -> None:
    maps = await _maps()
    await _states(maps, UNCLEAN)
    assert sorted(maps.files) == [f"{NAME}.3-2", f"{NAME}.4-2"]


async def test_in_sync_and_clean_what_is_marked_has_only_to_grow_clean_again() -> None:
    admission = replace(UNCLEAN, state=State.TARGET_SELECTED, flag_digest="g")
    states, _, _ = await _states(await _maps(), admission, replace(WITNESS, state=State.TARGET_SELECTED))
    assert states == [CLEAN, HOT] + [CLEAN] * (REGIONS - 2)


async def test_half_a_copy_without_its_map_begins_again() -> None:
    admission = replace(UNCLEAN, state=State.SYNCING, flag_digest="g")
    states, because, map_id = await _states(PromptMaps(), admission, replace(WITNESS, state=State.SYNCING))
    assert (states, map_id) == ([DUE] * REGIONS, "4-2")
    assert because == "", "the new map is whole, and says that everything may differ"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attempt": 3}, "of attempt 3"),
        ({"attempt": 1}, "of attempt 1"),
        ({"flag_digest": "other"}, "another error flag"),
        ({"uuid": "other"}, "another migration"),
        ({"map_id": "2-2"}, "not the one that the witness trusts"),
        ({"target": "file inode:9:9 1"}, "another target"),
    ],
)
async def test_map_of_anything_else_is_not_taken_over(change: dict[str, Any], words: str) -> None:
    states, because, map_id = await _states(await _maps(**change), UNCLEAN)
    assert states == [DUE] * REGIONS
    assert words in because
    assert map_id == "", "in setup nothing is recorded without one"


async def test_attempt_that_did_not_come_about_leaves_the_map_as_good_as_it_was() -> None:
    """`sync` renews the header before the witness, which was not written."""
    maps = await _maps(attempt=3, flag_digest="of attempt 3")
    states, because, _ = await _states(maps, UNCLEAN, replace(WITNESS, state=State.SETUP))
    assert (states[:3], because) == ([CLEAN, DUE, CLEAN], "")


async def test_map_that_cannot_be_written_is_none_and_closes_nothing() -> None:
    maps = await _maps()
    maps.fails = 1
    states, because, map_id = await _states(maps, UNCLEAN)
    assert (states, map_id) == ([DUE] * REGIONS, "")
    assert "could not be written" in because


async def test_map_that_cannot_be_read_means_that_all_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = await _maps()

    async def read(_name: str) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(maps, "read", read)
    _, because, map_id = await _states(maps, UNCLEAN)
    assert "cannot be read (Input/output error)" in because
    assert map_id == ""


async def test_without_maps_the_reason_is_the_configuration() -> None:
    keeper = await taken_over(UNCLEAN, WITNESS, files=None, region_size_bytes=REGION, run=4)
    assert "turned off" in keeper.full_because
    assert keeper.map_id == ""
