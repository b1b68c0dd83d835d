"""The journal's past: read with single questions, to the end, and of a long chain the newest part."""

import base64
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from services.monitoring import archive as archive_module
from services.monitoring.archive import Archive
from shared.bus.interface import Unanswered
from shared.messages.codec import encode
from shared.migration.records import AnyRecord
from shared.migration.refusals import Refusal
from tests.support.records import flag_set


@dataclass
class Message:
    """What nats-py hands out."""

    data: bytes


class Server:
    """Answers what a monitor may ask of the stream, and counts the questions."""

    def __init__(self, payloads: list[tuple[str, bytes]]) -> None:
        self.payloads = payloads
        self.questions = 0

    async def request_bytes(self, subject: str, payload: bytes, *, timeout_s: float) -> Message:
        self.questions += 1
        if subject.endswith("INFO.CUTOVER_JOURNAL"):
            return Message(orjson.dumps({"state": {"first_seq": 1, "last_seq": len(self.payloads)}}))
        assert subject == "$JS.API.STREAM.MSG.GET.CUTOVER_JOURNAL"
        found = self._found(orjson.loads(payload))
        if found is None:
            return Message(orjson.dumps({"error": {"err_code": 10037, "description": "no message found"}}))
        message = {"seq": found, "data": base64.b64encode(self.payloads[found - 1][1]).decode()}
        return Message(orjson.dumps({"message": message}))

    def _found(self, asked: dict[str, Any]) -> int | None:
        sequences = range(asked.get("seq", 1), len(self.payloads) + 1)
        pattern = asked.get("next_by_subj") or asked.get("last_by_subj")
        if pattern is None:
            return asked["seq"] if asked["seq"] in sequences else None
        fitting = [each for each in sequences if self.payloads[each - 1][0] == pattern.split(".")[2]]
        return (fitting[-1] if "last_by_subj" in asked else fitting[0]) if fitting else None


def stored(*names: str) -> list[tuple[str, bytes]]:
    """A record for each name, in this order."""
    counts: dict[str, int] = {}
    payloads = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        payloads.append((name, encode(replace(flag_set(), migration=name, index=counts[name]))))
    return payloads


def indices(records: Any) -> list[int]:
    found: list[AnyRecord] = list(records)
    return [record.index for record in found]


async def test_chain_is_read_whole_and_without_the_others() -> None:
    archive = Archive(Server(stored("a", "b", "a", "b", "a")))  # type: ignore[arg-type]
    records, is_whole = await archive.chain("a")
    assert (indices(records), is_whole) == ([1, 2, 3], True)
    assert {record.migration for record in records} == {"a"}
    assert await archive.chain("nobody") == ((), True)


async def test_of_a_long_chain_the_newest_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "CHAIN_MAX", 10)
    server = Server(stored(*(["a"] * 3 + ["b"]) * 200))
    records, is_whole = await Archive(server).chain("a")  # type: ignore[arg-type]
    assert (indices(records), is_whole) == (list(range(591, 601)), False)
    assert server.questions < 30


async def test_last_records_of_all_are_in_order() -> None:
    archive = Archive(Server(stored(*"abcdefgh")))  # type: ignore[arg-type]
    assert [record.migration for record in await archive.last(3)] == ["f", "g", "h"]
    assert len(await archive.last(100)) == 8


async def test_record_that_this_version_cannot_read_is_passed_over() -> None:
    payloads = stored("a", "a", "a")
    payloads[1] = "a", payloads[1][1].replace(b'"version":1', b'"version":2')
    records, _ = await Archive(Server(payloads)).chain("a")  # type: ignore[arg-type]
    assert indices(records) == [1, 3]


async def test_server_that_does_not_answer_is_away() -> None:
    server = Server([])

    async def unanswered(*_args: object, **_kwargs: object) -> Message:
        raise Unanswered("no answer")

    server.request_bytes = unanswered  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="no answer"):
        await Archive(server).chain("a")  # type: ignore[arg-type]
