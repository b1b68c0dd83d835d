"""The journal's past, read record by record with the one question that a monitor may ask of it: a message by its sequence.

No consumer is made, and nothing is left behind at the server. Reading has a bound: of a very long chain the newest part is read.
"""

import base64
import logging
from collections.abc import Sequence
from typing import Any

import orjson

from shared.bounded import for_each
from shared.bus.connection import Bus
from shared.bus.interface import Unanswered
from shared.messages.codec import decode_record
from shared.migration.records import AnyRecord, Subjects
from shared.migration.refusals import Code, Refusal
from shared.plain import shortened

_log = logging.getLogger(__name__)

TIMEOUT_S = 3.0
AT_ONCE_MAX = 8
CHAIN_MAX = 600  # records that are read of one migration

_API = "$JS.API.STREAM"
_NO_MESSAGE = 10037


class Archive:
    """The stream of the journal, as a reader sees it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def last(self, count: int) -> Sequence[AnyRecord]:
        """The last records of the whole journal, in order; those that cannot be read are left out.

        Raises:
            Refusal: `journal-away`.
        """
        info = await self._ask(f"INFO.{Subjects.STREAM}", {})
        state = info["state"]
        first, last = int(state["first_seq"]), int(state["last_seq"])
        sequences = range(max(first, last - count + 1), last + 1)
        found = await for_each(sequences, self._at, at_once=AT_ONCE_MAX)
        return [record for record in found if record is not None]

    async def chain(self, migration: str) -> tuple[Sequence[AnyRecord], bool]:
        """The records under one name, in order, and whether that is all of them.

        Raises:
            Refusal: `journal-away`.
        """
        subjects = Subjects.chain(migration)
        newest = await self._message({"last_by_subj": subjects})
        if newest is None:
            return (), True
        sequence, last = newest
        wanted = (last.index if last is not None else 0) - CHAIN_MAX + 1
        at = await self._sequence_of(subjects, wanted, sequence) if wanted > 1 else 1
        records: list[AnyRecord] = []
        while len(records) < CHAIN_MAX and (
            found := await self._message({"seq": at, "next_by_subj": subjects})
        ):
            at, record = found[0] + 1, found[1]
            if record is not None:
                records.append(record)
        return records, wanted <= 1

    async def _sequence_of(self, subjects: str, index: int, high: int) -> int:
        """Where the record with this index stands, found by halving."""
        low = 1
        while low < high:
            middle = (low + high) // 2
            found = await self._message({"seq": middle, "next_by_subj": subjects})
            if found is None or found[1] is None or found[1].index >= index:
                high = middle
            else:
                low = found[0] + 1
        return low

    async def _at(self, sequence: int) -> AnyRecord | None:
        found = await self._message({"seq": sequence})
        return found[1] if found is not None else None

    async def _message(self, asked: dict[str, object]) -> tuple[int, AnyRecord | None] | None:
        """A message and its sequence; no record where this version cannot read it; None where there is no message."""
        answer = await self._ask(f"MSG.GET.{Subjects.STREAM}", asked)
        if not answer:
            return None
        message = answer["message"]
        try:
            record = decode_record(base64.b64decode(message.get("data", "")))
        except Refusal as refusal:
            _log.warning(
                "A record on %r is passed over: %s", shortened(str(message.get("subject"))), refusal.message
            )
            return int(message["seq"]), None
        return int(message["seq"]), record

    async def _ask(self, what: str, asked: dict[str, object]) -> dict[str, Any]:
        payload = orjson.dumps(asked) if asked else b""
        try:
            message = await self._bus.request_bytes(f"{_API}.{what}", payload, timeout_s=TIMEOUT_S)
        except Unanswered as unanswered:
            raise Refusal(Code.JOURNAL_AWAY, unanswered.message) from unanswered
        answer: dict[str, Any] = orjson.loads(message.data)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") == _NO_MESSAGE:
            return {}
        raise Refusal(
            Code.JOURNAL_AWAY, f"The journal cannot be read: {error.get('description', 'no reason given')}."
        )
