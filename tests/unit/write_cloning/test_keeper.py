"""A witness that cannot be written is told of when that begins, when the reason is another, and when it is over."""

import logging
from unittest.mock import AsyncMock

import pytest

from services.write_cloning import keeper as keeping
from services.write_cloning.keeper import Keeper
from services.write_cloning.witness import Witness
from shared.migration.states import State
from tests.support.records import DEVICES, HOST, NAME, UUID

WITNESS = Witness(
    migration=NAME,
    uuid=UUID,
    host=HOST,
    run=1,
    state=State.SYNCING,
    attempt=2,
    decision=2,
    operation_id="o",
    trigger="sync",
    devices=DEVICES,
)


async def test_trouble_is_told_once_each_time_that_it_becomes_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Failing, a full disk fills the log as well: a line a second, for as long as it lasts."""
    monkeypatch.setattr(keeping, "WITNESS_RETRY_S", 0)
    full, broken = OSError(28, "No space left on device"), OSError(5, "Input/output error")
    witnesses = AsyncMock()
    witnesses.write.side_effect = [full, full, full, broken, broken, None]
    keeper = Keeper(WITNESS, witnesses)
    with caplog.at_level(logging.INFO):
        await keeper.insist(attempt=3)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("CRITICAL", "the witness cannot be written, I/O waits for it: No space left on device"),
        ("CRITICAL", "the witness cannot be written, I/O waits for it: Input/output error"),
        ("WARNING", "the witness can be written again"),
    ]
    assert {record.migration for record in caplog.records} == {NAME}  # type: ignore[attr-defined]
    assert (keeper.trouble, keeper.witness.attempt) == ("", 3)
