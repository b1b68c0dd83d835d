"""A target that was missing when its host started is back, and can be synced to, whatever blocks it takes."""

from dataclasses import replace

import pytest

from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.host import Host
from shared.messages.admission import Admission
from shared.migration.devices import Side
from shared.migration.refusals import Code
from shared.migration.states import State
from tests.support.standing_host import NAME, standing_host


@pytest.mark.parametrize("block_bytes", [1, 512, 4096])
async def test_target_that_was_missing_at_the_start_can_be_used_when_it_is_back(block_bytes: int) -> None:
    """The volume was opened for the source's blocks alone, and the target was refused as another device."""
    async with standing_host(target_block_bytes=block_bytes) as house:
        await house.migration.release()
        witness, host = house.witness, Host(replace(house.around, run=2))
        house.drawer.target_refused = Code.DEVICE_MISSING
        admission = Admission(
            migration=NAME,
            uuid=witness.uuid,
            label="idle",
            state=State.SETUP,
            authority=Side.SOURCE,
            attempt=0,
            decision=witness.decision,
            tail_digest=witness.tail_digest,
            flag_digest="",
            source_faults=0,
            target_faults=0,
            devices=witness.devices,
            reason="",
            is_witness_believed=True,
        )
        await host._open(admission, witness)
        apparatus = host.find(NAME).apparatus
        assert isinstance(apparatus.target, AbsentDevice)
        house.drawer.target_refused = None
        await apparatus.open_target()
        assert apparatus.volume.alignment_bytes == apparatus.target.alignment_bytes == block_bytes
        await host.release()
