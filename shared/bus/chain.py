"""The journal over a stream: what makes appending safe to interrupt and to repeat, whatever stores the bytes.

A record is stored conditionally on the last sequence of *all* subjects of its migration, so that of two writers who
read the same tail only one succeeds. A publish whose outcome is unknown — it timed out, it was cancelled, it lost
against a writer who may have been itself — is looked up by its operation id before anything else is tried.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shared.bus.storing import REMEDY, StoreTrouble, nothing_known
from shared.messages.cloudevents import record_headers
from shared.messages.codec import decode_record, encode
from shared.migration.ledger import Entry, Folding, Ledger, Tail
from shared.migration.records import AnyRecord, Subjects, digest_of
from shared.migration.refusals import Code, Refusal

_ANSWER = b'{"type":"io.nats.jetstream.api.'  # how every answer of JetStream begins, and no record
APPEND_ATTEMPTS_MAX = 3  # with the same position: a stream that answers none of them is away


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream."""

    sequence: int
    payload: bytes


class WrongLastSequence(Exception):
    """The stream has a later message on the subjects than the publisher expected: nothing was stored."""


class OutcomeUnknown(Exception):
    """The stream did not answer: the message may be stored, or be stored yet."""


class Stream(Protocol):
    """The stream of the journal, as bytes."""

    async def read(self, subjects: str) -> Sequence[Stored]:
        """Every message on the subjects that was stored before the call, in order; perhaps later ones.

        Raises:
            Refusal: `journal-away`.
        """

    async def read_each(self, subjects: str, take: Callable[[str, Stored], None]) -> None:
        """The same, one after the other and each with its subject: for more than anybody should hold at once.

        Raises:
            Refusal: `journal-away`; some may have been taken before.
        """

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], *, subjects: str, last_sequence: int
    ) -> int:
        """Store, provided that `last_sequence` is the last on `subjects` (0: none). Durable on return.

        Returns:
            The sequence that it got.

        Raises:
            WrongLastSequence: it is not.
            OutcomeUnknown: no answer came.
            Refusal: `journal-away`, with nothing stored.
        """

    async def subjects(self) -> Sequence[str]:
        """Every subject that has a message."""


class ChainJournal:
    """Implements `Journal` over a stream."""

    def __init__(self, stream: Stream, store_trouble: StoreTrouble = nothing_known) -> None:
        """`store_trouble` is asked when a record is not acknowledged: why the server stores nothing, if that is so."""
        self._stream = stream
        self._store_trouble = store_trouble

    async def read(self, migration: str) -> Ledger:
        """See `Journal`."""
        return _ledger(migration, await self._stream.read(Subjects.chain(migration)))

    async def read_living(self) -> Mapping[str, Ledger | Refusal]:
        """See `Journal`."""
        chains = _Chains()
        await self._stream.read_each(Subjects.ALL, chains.take)
        return chains.living()

    async def append(self, record: AnyRecord, tail: Tail) -> Entry:
        """See `Journal`."""
        placed = replace(record, index=tail.index + 1, previous_digest=tail.digest)
        for _attempt in range(APPEND_ATTEMPTS_MAX):
            try:
                return await self._store(placed, tail)
            except WrongLastSequence:
                return await self._found(placed) or _raise_busy(placed)
            except OutcomeUnknown:
                ledger = await self.read(record.migration)
                entry = ledger.operation(record.operation_id, record.kind, uuid=record.uuid)
                if entry is not None:
                    return entry
                if ledger.tail.sequence != tail.sequence:
                    _raise_busy(placed)
                # A second attempt in vain would leave whoever waits for us without an answer.
                if why := await self._store_trouble():
                    raise Refusal(
                        Code.JOURNAL_AWAY, f"The journal does not take the record: {why}. {REMEDY}."
                    ) from None
        raise Refusal(
            Code.JOURNAL_AWAY,
            f"The journal does not acknowledge the {record.kind} record of {record.migration!r}; "
            "it may be stored all the same.",
        )

    async def migrations(self) -> Sequence[str]:
        """See `Journal`."""
        return sorted({_migration_of(subject) for subject in await self._stream.subjects()})

    async def _store(self, record: AnyRecord, tail: Tail) -> Entry:
        payload = encode(record)
        sequence = await self._stream.publish(
            Subjects.of(record),
            payload,
            record_headers(record),
            subjects=Subjects.chain(record.migration),
            last_sequence=tail.sequence,
        )
        return Entry(sequence, record, digest_of(payload))

    async def _found(self, record: AnyRecord) -> Entry | None:
        ledger = await self.read(record.migration)
        return ledger.operation(record.operation_id, record.kind, uuid=record.uuid)


class _Chains:
    """Those of all names, as their records come by. Of lives that are over no more is held than that they are."""

    def __init__(self) -> None:
        self._foldings: dict[str, Folding] = {}
        self._refusals: dict[str, Refusal] = {}

    def take(self, subject: str, message: Stored) -> None:
        """Take one more message."""
        migration = _migration_of(subject)
        if migration in self._refusals:
            return
        if (folding := self._foldings.get(migration)) is None:
            folding = self._foldings[migration] = Folding(migration, keeps_ended_lives=False)
        try:
            _add(folding, message)
        except Refusal as refusal:
            self._refusals[migration] = refusal
            del self._foldings[migration]

    def living(self) -> Mapping[str, Ledger | Refusal]:
        """Those that are not known to be over."""
        folded = self._foldings.items()
        return self._refusals | {name: each.ledger() for name, each in folded if not each.is_over}


def _ledger(migration: str, stored: Sequence[Stored]) -> Ledger:
    folding = Folding(migration)
    for message in stored:
        _add(folding, message)
    return folding.ledger()


def _migration_of(subject: str) -> str:
    return subject.split(".")[2]


def _add(folding: Folding, message: Stored) -> None:
    """Raises Refusal for what cannot be read as a record."""
    if _is_stray(message.payload):
        folding.pass_over(message.sequence)
    else:
        folding.add(_entry(message))


def _is_stray(payload: bytes) -> bool:
    """Whether this is an answer of the NATS server that somebody had sent to a subject of the journal.

    Whoever may ask the server names the subject of the answer, and the server asks nobody's permission for it. An answer is
    no record, and without it nothing is missing: the chain, not the number of messages, tells what is whole.
    """
    return not payload or payload.startswith(_ANSWER)


def _entry(message: Stored) -> Entry:
    return Entry(message.sequence, decode_record(message.payload), digest_of(message.payload))


def _raise_busy(record: AnyRecord) -> Entry:
    raise Refusal(
        Code.BUSY,
        f"Another record of {record.migration!r} was stored just now; look at the migration and ask again.",
    )
