"""The handshake's messages, packed and unpacked ("Option types", "Option reply types").

Unpacking is strict: lengths must add up to the byte, strings are UTF-8 without NUL. Nothing here knows what is allowed
when; that is the two handshakes' business.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from shared.nbd.constants import (
    GREETING_MAGIC,
    MAX_STRING_BYTES,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    TransmissionFlag,
)
from shared.nbd.errors import OptionRefusedError
from shared.nbd.exports import BlockSizes

GREETING = struct.Struct(">QQH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
EXPORT_NAME_REPLY = struct.Struct(">QH")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")


class ExportQuery(NamedTuple):
    """The payload of INFO and GO."""

    name: str
    infos: frozenset[int]


class ContextQuery(NamedTuple):
    """The payload of LIST_META_CONTEXT and SET_META_CONTEXT."""

    name: str
    queries: tuple[str, ...]


class Fields:
    """Reads a payload from front to back, and insists that it is neither too short nor too long."""

    __slots__ = ("_at", "_payload")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self._at + length
        if end > len(self._payload):
            raise malformed(f"it ends {end - len(self._payload)} bytes before its own lengths say")
        taken = self._payload[self._at : end]
        self._at = end
        return taken

    def u16(self) -> int:
        """A 16-bit number."""
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        """A 32-bit number."""
        return int.from_bytes(self.take(4))

    def string(self) -> str:
        """A string with its 32-bit length in front."""
        return as_string(self.take(self.u32()))

    def rest(self) -> bytes:
        """Whatever is left."""
        return self.take(len(self._payload) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._payload):
            raise malformed(f"{len(self._payload) - self._at} bytes too many")


def malformed(what: str) -> OptionRefusedError:
    """The refusal of a payload that does not parse."""
    return OptionRefusedError(OptionReply.ERR_INVALID, f"malformed option: {what}")


def as_string(data: bytes) -> str:
    """Text as "Conventions" allows it.

    Raises:
        OptionRefusedError: too long, not UTF-8, or with a NUL in it.
    """
    if len(data) > MAX_STRING_BYTES:
        raise malformed(f"a string of {len(data)} bytes, where {MAX_STRING_BYTES} are allowed")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise malformed("a string that is not UTF-8") from None
    if "\0" in text:
        raise malformed("a NUL character within a string")
    return text


# ------------------------------------------------------------------------------------------------------ from the client


def parse_export_query(payload: bytes) -> ExportQuery:
    """Unpack INFO or GO.

    Raises:
        OptionRefusedError: malformed.
    """
    fields = Fields(payload)
    name = fields.string()
    infos = frozenset(fields.u16() for _ in range(fields.u16()))
    fields.end()
    return ExportQuery(name, infos)


def parse_context_query(payload: bytes) -> ContextQuery:
    """Unpack LIST_META_CONTEXT or SET_META_CONTEXT.

    Raises:
        OptionRefusedError: malformed, or a query without the colon that ends its namespace.
    """
    fields = Fields(payload)
    name = fields.string()
    queries = tuple(fields.string() for _ in range(fields.u32()))
    fields.end()
    for query in queries:
        if not query.partition(":")[1]:
            raise malformed(f"{query[:80]!r} names no namespace")
    return ContextQuery(name, queries)


def pack_option(option: Option, payload: bytes = b"") -> bytes:
    """One option, as a client sends it."""
    return OPTION.pack(OPTION_MAGIC, option, len(payload)) + payload


def pack_export_query(name: str, infos: Sequence[Info]) -> bytes:
    """The payload of INFO and GO."""
    return _pack_string(name) + _U16.pack(len(infos)) + b"".join(map(_U16.pack, infos))


def pack_context_query(name: str, queries: Sequence[str]) -> bytes:
    """The payload of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return _pack_string(name) + _U32.pack(len(queries)) + b"".join(map(_pack_string, queries))


# ------------------------------------------------------------------------------------------------------ from the server


def pack_greeting(flags: HandshakeFlag) -> bytes:
    """What the server says first."""
    return GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, flags)


def pack_reply(option: int, reply: OptionReply, payload: bytes = b"") -> bytes:
    """One reply to an option; an error's payload is a sentence for people."""
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(payload)) + payload


def pack_refusal(option: int, refusal: OptionRefusedError) -> bytes:
    """The reply that refuses an option and says why."""
    return pack_reply(option, refusal.reply, shorten(refusal.sentence))


def pack_server(name: str, description: str) -> bytes:
    """The payload of SERVER, one entry of a LIST."""
    return _pack_string(name) + description.encode()


def pack_info_export(size_bytes: int, flags: TransmissionFlag) -> bytes:
    """The payload of INFO that tells size and abilities."""
    return INFO_EXPORT.pack(Info.EXPORT, size_bytes, flags)


def pack_info_text(info: Info, text: str) -> bytes:
    """The payload of INFO that tells a name or a description."""
    return _U16.pack(info) + text.encode()


def pack_info_block_size(blocks: BlockSizes) -> bytes:
    """The payload of INFO that tells the size constraints."""
    return INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, blocks.minimum, blocks.preferred, blocks.maximum)


def pack_meta_context(context_id: int, name: str) -> bytes:
    """The payload of META_CONTEXT."""
    return _U32.pack(context_id) + name.encode()


def shorten(sentence: str) -> bytes:
    """A sentence as UTF-8, cut where a string would become too long."""
    return sentence.encode()[:MAX_STRING_BYTES].decode(errors="ignore").encode()


def _pack_string(text: str) -> bytes:
    data = text.encode()
    return _U32.pack(len(data)) + data
