"""A peer chooses the subject that he asks on: it is told of in the log, but not at any length."""

from types import SimpleNamespace
from typing import cast

import pytest
from nats.aio.msg import Msg

from shared.bus.answering import answer
from shared.bus.endpoints import _why_no_request
from shared.bus.interface import Endpoint
from shared.messages.codec import decode_reply
from shared.messages.control import ErrorReply, PlainRequest
from shared.plain import FOREIGN_CHARACTERS_MAX

LONG = "v" * 3000
LINE_MAX = 3 * FOREIGN_CHARACTERS_MAX


async def fails(name: str, request: object) -> object:
    raise RuntimeError


async def test_subject_of_a_request_that_fails_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint(name="e", subject=f"cutover.control.{LONG}", request=PlainRequest, handler=fails)
    await answer(endpoint, endpoint.subject, b"")
    assert "(3016 characters)" in caplog.messages[0]
    assert len(caplog.messages[0]) < LINE_MAX


async def test_name_that_is_none_is_shortened() -> None:
    endpoint = Endpoint(name="e", subject="cutover.control.sync.*", request=PlainRequest, handler=fails)
    given = await answer(endpoint, f"cutover.control.sync.{LONG}", b"")
    assert len(decode_reply(ErrorReply, given.payload).error.message) < LINE_MAX


def test_subject_that_a_message_was_sent_on_or_wants_its_answer_on_is_shortened() -> None:
    endpoint = Endpoint(name="e", subject="cutover.control.sync.*", request=PlainRequest, handler=fails)
    for subject, reply in ((f"cutover.{LONG}", "_INBOX.1"), ("cutover.control.sync.vol1", f"cutover.{LONG}")):
        message = SimpleNamespace(subject=subject, reply=reply, headers=None)
        why = _why_no_request(endpoint, cast("Msg", message))
        assert why is not None
        assert LONG[:100] in why
        assert len(why) < LINE_MAX
