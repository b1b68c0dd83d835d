"""From the bytes of a request to the bytes of its answer, whatever carries them."""

import logging
from dataclasses import dataclass

from shared.bus.interface import Endpoint, ServiceDescription
from shared.messages.codec import decode, decode_reply, encode
from shared.messages.control import ErrorBody, ErrorReply
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Code, Refusal
from shared.plain import shortened

_log = logging.getLogger(__name__)

_INTERNAL = Refusal(
    Code.INTERNAL,
    "Something is wrong inside Cutover; the service's log has the details. Nothing is assumed to be done.",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The payload of a reply, and the refusal that it tells of."""

    payload: bytes
    refusal: Refusal | None = None


async def answer(endpoint: Endpoint, subject: str, payload: bytes) -> Answer:
    """Decode, have it handled, encode. What goes wrong becomes an error reply; what nobody foresaw keeps its text."""
    try:
        names = _names(endpoint, subject)
        request: object = decode(endpoint.request, payload, bytes_max=endpoint.request_bytes_max)
        return Answer(encode(await endpoint.handler(*names, request)))
    except Refusal as refusal:
        return refused(refusal)
    except Exception:  # noqa: BLE001 # logged, and told as `internal`
        _log.exception("a request on %s failed", shortened(subject))
        return refused(_INTERNAL)


def refused(refusal: Refusal) -> Answer:
    """The answer that tells of a refusal."""
    body = ErrorBody(code=refusal.code, message=refusal.message, allowed=refusal.allowed)
    return Answer(encode(ErrorReply(error=body)), refusal)


def refusal_in(payload: bytes) -> Refusal:
    """The refusal that an error reply tells of. A code that this version does not know reads as `internal`."""
    error = decode_reply(ErrorReply, payload).error
    known = error.code in Code.__members__.values()
    return Refusal(Code(error.code) if known else Code.INTERNAL, error.message, error.allowed)


def queue_group(service: ServiceDescription) -> str:
    """The name under which the instances of a service share their requests."""
    return service.name


def _names(endpoint: Endpoint, subject: str) -> list[str]:
    parts = zip(endpoint.subject.split("."), subject.split("."), strict=True)
    names = [token for part, token in parts if part == "*"]
    for name in names:
        if not is_valid_name(name):
            raise Refusal(Code.BAD_NAME, f"{shortened(name)!r} is no name: {NAME_RULE}.")
    return names or [""]
