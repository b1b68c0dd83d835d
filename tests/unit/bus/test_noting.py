"""What a journal notes for the log: the attempt and the host of each migration, as far as it was read or written."""

from dataclasses import replace
from unittest.mock import AsyncMock

import pytest

from shared.bus import noting
from shared.bus.chain import ChainJournal
from shared.bus.memory import MemoryBroker, MemoryBus, MemoryStream
from shared.bus.noting import NotingJournal
from shared.logs.about import Whereabouts
from tests.support.records import fault_record, state_record


@pytest.fixture
def journal() -> NotingJournal:
    return NotingJournal(ChainJournal(MemoryStream(MemoryBus(MemoryBroker()))))


async def test_what_is_written_and_what_is_read_is_noted(journal: NotingJournal) -> None:
    assert journal.whereabouts("vol1") == Whereabouts()
    ledger = await journal.read("vol1")
    assert journal.whereabouts("vol1") == Whereabouts(), "there is no such migration"
    await journal.append(state_record(attempt=0), ledger.tail)
    assert journal.whereabouts("vol1") == Whereabouts(0, "h1")
    ledger = await journal.read("vol1")
    await journal.append(fault_record(attempt=2), ledger.tail)
    assert journal.whereabouts("vol1") == Whereabouts(2, "h1")
    await journal.read("vol1")
    assert journal.whereabouts("vol1") == Whereabouts(0, "h1"), "a fault begins no attempt"
    assert await journal.migrations() == ["vol1"]


async def test_what_is_noted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "NOTED_MAX", 3)
    inner = AsyncMock()
    journal = NotingJournal(inner)
    for number in range(5):
        await journal.append(replace(state_record(), migration=f"vol{number}"), inner.tail)
    noted = [number for number in range(5) if journal.whereabouts(f"vol{number}") != Whereabouts()]
    assert noted == [2, 3, 4]
