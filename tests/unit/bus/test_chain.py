"""Appending to a chain: stored once, on the tail that it was decided on, however often it is interrupted."""

from collections.abc import Callable, Sequence

import pytest

from shared.bus.appending import append_decided
from shared.bus.chain import APPEND_ATTEMPTS_MAX, ChainJournal, OutcomeUnknown, Stored
from shared.bus.memory import MemoryBroker, MemoryBus, MemoryStream
from shared.migration.ledger import Entry, Ledger, Tail
from shared.migration.records import FlagSetRecord
from shared.migration.refusals import Code, Refusal
from tests.support.records import NAME, fault_record, flag_set, state_record, tombstone


class LossyStream:
    """A stream whose answers get lost. Each of `losses` is for one publish: before it is stored, or after."""

    def __init__(self, stream: MemoryStream, *losses: str) -> None:
        self.stream = stream
        self.losses = list(losses)
        self.published = 0

    async def read(self, subjects: str) -> Sequence[Stored]:
        return await self.stream.read(subjects)

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], *, subjects: str, last_sequence: int
    ) -> int:
        self.published += 1
        loss = self.losses.pop(0) if self.losses else ""
        if loss == "before":
            raise OutcomeUnknown
        sequence = await self.stream.publish(
            subject, payload, headers, subjects=subjects, last_sequence=last_sequence
        )
        if loss == "after":
            raise OutcomeUnknown
        return sequence

    async def read_each(self, subjects: str, take: Callable[[str, Stored], None]) -> None:
        await self.stream.read_each(subjects, take)

    async def subjects(self) -> Sequence[str]:
        return await self.stream.subjects()


def lossy(*losses: str) -> tuple[ChainJournal, LossyStream]:
    stream = LossyStream(MemoryStream(MemoryBus(MemoryBroker())), *losses)
    return ChainJournal(stream), stream


async def test_a_record_is_placed_on_the_tail() -> None:
    journal, _stream = lossy()
    first = await journal.append(state_record(), Tail())
    second = await journal.append(flag_set(), (await journal.read(NAME)).tail)
    assert (first.record.index, first.record.previous_digest) == (1, "")
    assert (second.record.index, second.record.previous_digest) == (2, first.digest)
    ledger = await journal.read(NAME)
    assert ledger.broken is None
    assert ledger.entries == (first, second)


@pytest.mark.parametrize("loss", ["before", "after"])
async def test_a_lost_answer_leaves_one_record(loss: str) -> None:
    journal, _stream = lossy(loss)
    entry = await journal.append(state_record(), Tail())
    assert (await journal.read(NAME)).entries == (entry,)


@pytest.mark.parametrize("loss", ["before", "after"])
async def test_a_lost_answer_is_not_found_in_an_earlier_migration_of_the_name(loss: str) -> None:
    """A chosen operation id may come again: what the first had left passed for the record of the second, which was not stored."""
    journal, stream = lossy()
    for record in (state_record(), flag_set("mine"), tombstone(), state_record(uuid="u2")):
        await journal.append(record, (await journal.read(NAME)).tail)
    stream.losses.append(loss)
    entry = await journal.append(flag_set("mine", uuid="u2"), (await journal.read(NAME)).tail)
    ledger = await journal.read(NAME)
    assert (entry.record.uuid, ledger.entries[-1], len(ledger.entries)) == ("u2", entry, 5)


async def test_a_stream_that_never_answers_is_away() -> None:
    journal, stream = lossy(*["before"] * APPEND_ATTEMPTS_MAX)
    with pytest.raises(Refusal) as caught:
        await journal.append(state_record(), Tail())
    assert caught.value.code is Code.JOURNAL_AWAY
    assert "may be stored" in caught.value.message
    assert stream.published == APPEND_ATTEMPTS_MAX


async def test_a_server_that_cannot_store_is_told_of_at_once() -> None:
    """Whoever asked waits no longer than we do: a second attempt in vain would leave him without an answer."""

    async def full() -> str:
        return "the NATS server cannot store: no space left on device"

    stream = LossyStream(MemoryStream(MemoryBus(MemoryBroker())), "before")
    with pytest.raises(Refusal) as caught:
        await ChainJournal(stream, full).append(state_record(), Tail())
    assert caught.value.code is Code.JOURNAL_AWAY
    assert "no space left on device. Make room" in caught.value.message
    assert stream.published == 1


async def test_what_was_stored_unacknowledged_counts_also_where_the_server_cannot_store_any_more() -> None:
    async def full() -> str:
        return "the NATS server cannot store: no space left on device"

    stream = LossyStream(MemoryStream(MemoryBus(MemoryBroker())), "after")
    entry = await ChainJournal(stream, full).append(state_record(), Tail())
    assert (await ChainJournal(stream).read(NAME)).entries == (entry,)


async def test_a_tail_that_is_no_longer_the_tail_is_refused() -> None:
    journal, _stream = lossy()
    await journal.append(state_record("one"), Tail())
    with pytest.raises(Refusal) as caught:
        await journal.append(state_record("two"), Tail())
    assert caught.value.code is Code.BUSY


async def test_a_lost_answer_and_another_writer_is_refused() -> None:
    journal, stream = lossy("before")
    read = stream.read

    async def read_after_another(subjects: str) -> Sequence[Stored]:
        if not await read(subjects):
            await ChainJournal(stream.stream).append(state_record("other"), Tail())
        return await read(subjects)

    stream.read = read_after_another  # type: ignore[method-assign]
    with pytest.raises(Refusal) as caught:
        await journal.append(state_record("mine"), Tail())
    assert caught.value.code is Code.BUSY


async def test_asking_again_finds_what_is_there() -> None:
    journal, _stream = lossy()
    first = await journal.append(state_record("one"), Tail())
    await journal.append(flag_set("two"), (await journal.read(NAME)).tail)
    assert await journal.append(state_record("one"), Tail()) == first


async def test_one_operation_may_leave_records_of_two_kinds() -> None:
    journal, _stream = lossy()
    await journal.append(state_record("same"), Tail())
    with pytest.raises(Refusal) as caught:
        await journal.append(flag_set("same"), Tail())
    assert caught.value.code is Code.BUSY


async def test_migrations_do_not_get_in_each_others_way() -> None:
    journal, _stream = lossy()
    await journal.append(state_record(), Tail())
    await journal.append(state_record(migration="vol2"), Tail())
    assert await journal.migrations() == ["vol1", "vol2"]
    assert len((await journal.read("vol2")).entries) == 1


async def test_what_is_decided_is_decided_anew_when_another_was_faster() -> None:
    journal, _stream = lossy()
    await journal.append(state_record("one"), Tail())
    seen = []

    def decide(ledger: Ledger) -> FlagSetRecord:
        seen.append(ledger.tail.index)
        return flag_set("mine", attempt=ledger.tail.index)

    slow = ChainJournal(_Racing(journal))
    entry, ledger = await append_decided(slow, NAME, decide)
    assert seen == [1, 2]
    assert entry.record.attempt == ledger.tail.index == 2


async def test_what_is_there_is_not_appended() -> None:
    journal, stream = lossy()
    there = await journal.append(state_record("one"), Tail())
    published = stream.published
    entry, _ledger = await append_decided(journal, NAME, lambda ledger: ledger.entries[0])
    assert entry == there
    assert stream.published == published


class _Racing:
    """A stream on which somebody else records a fault between the first read and the first publish."""

    def __init__(self, journal: ChainJournal) -> None:
        self._journal = journal
        self._stream = journal._stream
        self._raced = False

    async def read(self, subjects: str) -> Sequence[Stored]:
        return await self._stream.read(subjects)

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], *, subjects: str, last_sequence: int
    ) -> int:
        if not self._raced:
            self._raced = True
            other: Entry = await self._journal.append(fault_record(), (await self._journal.read(NAME)).tail)
            assert other.record.index == 2
        return await self._stream.publish(
            subject, payload, headers, subjects=subjects, last_sequence=last_sequence
        )

    async def read_each(self, subjects: str, take: Callable[[str, Stored], None]) -> None:
        await self._stream.read_each(subjects, take)

    async def subjects(self) -> Sequence[str]:
        return await self._stream.subjects()


@pytest.mark.parametrize(
    "stray", [b"", b'{"type":"io.nats.jetstream.api.v1.stream_info_response","total":0}']
)
async def test_an_answer_of_the_server_among_the_records_changes_nothing(stray: bytes) -> None:
    """Anyone who may ask the server can have one sent there: at the end, in the middle, and where nothing else is."""
    journal, lossy_stream = lossy()
    broker = lossy_stream.stream._bus.broker
    broker.store(f"cutover.journal.{NAME}.state", stray)
    assert not (await journal.read(NAME)).exists
    first = await journal.append(state_record(), (await journal.read(NAME)).tail)
    broker.store(f"cutover.journal.{NAME}.flag", stray)
    second = await journal.append(flag_set(), (await journal.read(NAME)).tail)
    broker.store(f"cutover.journal.{NAME}.state", stray)
    ledger = await journal.read(NAME)
    assert ledger.broken is None
    assert ledger.entries == (first, second)
    assert (ledger.tail.index, ledger.tail.digest) == (2, second.digest)


async def test_what_is_neither_a_record_nor_an_answer_is_no_less_a_damage() -> None:
    journal, lossy_stream = lossy()
    await journal.append(state_record(), Tail())
    lossy_stream.stream._bus.broker.store(
        f"cutover.journal.{NAME}.state", b'{"kind":"io.nats.jetstream.api."}'
    )
    with pytest.raises(Refusal) as caught:
        await journal.read(NAME)
    assert caught.value.code is Code.JOURNAL_UNSOUND
