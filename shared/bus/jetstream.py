"""The journal's stream on JetStream. Implements `Stream`.

A read asks the stream's leader for the last sequence, then takes the messages up to it from a short-lived pull
consumer. One request for each message is too slow for a long chain, a direct get may be answered by a replica that
lags, and push consumers can stay deaf for long after a server restart.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import nats.errors
import nats.js.errors
import orjson
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, Header

from shared.bus.chain import OutcomeUnknown, Stored, WrongLastSequence
from shared.bus.connection import Bus, unsubscribe
from shared.bus.interface import Unanswered
from shared.bus.storing import remedy_of
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal

READ_TIMEOUT_S = 4.0
PUBLISH_TIMEOUT_S = 4.0
_BATCH_MAX = 256
_CONSUMER_INACTIVE_S = 10.0  # a consumer that was left behind goes by itself

_API = "$JS.API"
_EXPECTED_SUBJECTS = "Nats-Expected-Last-Subject-Sequence-Subject"
_NO_MESSAGE = 10037
_NOT_FOUND = 404
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})  # the second where the sequence is not told


class JetStreamStream:
    """The stream `CUTOVER_JOURNAL`, on one connection."""

    def __init__(self, bus: Bus, stream: str = Subjects.STREAM) -> None:
        self._bus = bus
        self._stream = stream
        self._jetstream: JetStreamContext = bus.client.jetstream()

    async def read(self, subjects: str) -> Sequence[Stored]:
        """See `Stream`."""
        last_sequence = await self._last_sequence(subjects)
        if last_sequence == 0:
            return ()
        stored: list[Stored] = []
        with _reading():
            async with (
                self._bus.waiting(f"{_API}.CONSUMER", READ_TIMEOUT_S),
                self._consumer(subjects) as consumer,
            ):
                while not stored or stored[-1].sequence < last_sequence:
                    stored += [_stored(message) for message in await _batch(consumer)]
        return stored

    async def read_each(self, subjects: str, take: Callable[[str, Stored], None]) -> None:
        """See `Stream`. Each batch has the time that one chain has: all records may be very many."""
        last_sequence = await self._last_sequence(subjects)
        if last_sequence == 0:
            return
        with _reading():
            async with AsyncExitStack() as stack:
                async with self._bus.waiting(f"{_API}.CONSUMER", READ_TIMEOUT_S):
                    consumer = await stack.enter_async_context(self._consumer(subjects))
                sequence = 0
                while sequence < last_sequence:
                    async with self._bus.waiting(f"{_API}.CONSUMER", READ_TIMEOUT_S):
                        messages = await _batch(consumer)
                    for message in messages:
                        stored = _stored(message)
                        take(message.subject, stored)
                        sequence = stored.sequence

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], *, subjects: str, last_sequence: int
    ) -> int:
        """See `Stream`."""
        conditions = {
            Header.EXPECTED_STREAM: self._stream,
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(last_sequence),
            _EXPECTED_SUBJECTS: subjects,
        }
        try:
            message = await self._bus.request_bytes(
                subject, payload, timeout_s=PUBLISH_TIMEOUT_S, headers={**headers, **conditions}
            )
        except Unanswered as unanswered:
            raise OutcomeUnknown(unanswered.message) from unanswered
        except Refusal as refusal:
            raise self._no_stream(refusal) from refusal
        return self._acknowledged(message.data)

    async def subjects(self) -> Sequence[str]:
        """See `Stream`."""
        try:
            async with self._bus.waiting(f"{_API}.STREAM.INFO", READ_TIMEOUT_S):
                info = await self._jetstream.stream_info(self._stream, subjects_filter=Subjects.ALL)
        except nats.js.errors.NotFoundError as error:
            raise self._missing() from error
        except Unanswered as unanswered:
            raise _away(unanswered.message) from unanswered
        except nats.errors.Error as error:  # as while its replicas have no leader
            raise _away(f"The journal cannot be read: {error}.") from error
        return tuple(info.state.subjects or ())

    async def _last_sequence(self, subjects: str) -> int:
        asked = orjson.dumps({"last_by_subj": subjects})
        try:
            message = await self._bus.request_bytes(
                f"{_API}.STREAM.MSG.GET.{self._stream}", asked, timeout_s=READ_TIMEOUT_S
            )
        except Unanswered as unanswered:
            raise _away(unanswered.message) from unanswered
        except Refusal as refusal:
            raise self._no_stream(refusal) from refusal
        answer = orjson.loads(message.data)
        if (error := answer.get("error")) is None:
            return int(answer["message"]["seq"])
        if error.get("err_code") == _NO_MESSAGE:
            return 0
        if error.get("code") == _NOT_FOUND:
            raise self._missing(error.get("description", ""))
        raise _away(f"The journal cannot be read: {error.get('description', '')}.")

    @asynccontextmanager
    async def _consumer(self, subjects: str) -> AsyncIterator[JetStreamContext.PullSubscription]:
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=_CONSUMER_INACTIVE_S,
        )
        consumer = await self._jetstream.pull_subscribe(subjects, stream=self._stream, config=config)
        try:
            yield consumer
        finally:
            await unsubscribe([consumer])
        if config.name:  # given by nats-py; where reading failed, the consumer goes by itself
            await self._jetstream.delete_consumer(self._stream, config.name)

    def _acknowledged(self, payload: bytes) -> int:
        answer = orjson.loads(payload)
        if (error := answer.get("error")) is None:
            return int(answer["seq"])
        if error.get("err_code") in _WRONG_LAST_SEQUENCE:
            raise WrongLastSequence
        why = str(error.get("description", "no reason given"))
        raise _away(f"The journal does not take the record: {why}.{remedy_of(error.get('err_code'), why)}")

    def _no_stream(self, refusal: Refusal) -> Refusal:
        return self._missing() if refusal.code is Code.SERVICE_AWAY else refusal

    def _missing(self, why: str = "") -> Refusal:
        because = f": {why}" if why else ""
        return _away(
            f"The stream {self._stream} is not there{because}; `python -P -m shared.bus.bootstrap` creates it."
        )


@contextmanager
def _reading() -> Iterator[None]:
    """Raises Refusal where the journal cannot be read."""
    try:
        yield
    except Unanswered as unanswered:
        raise _away(unanswered.message) from unanswered
    except nats.js.errors.Error as error:
        raise _away(f"The journal cannot be read: {error}.") from error


async def _batch(consumer: JetStreamContext.PullSubscription) -> Sequence[Msg]:
    return await consumer.fetch(_BATCH_MAX, timeout=READ_TIMEOUT_S)


def _stored(message: Msg) -> Stored:
    return Stored(message.metadata.sequence.stream, message.data)


def _away(why: str) -> Refusal:
    return Refusal(Code.JOURNAL_AWAY, why)
