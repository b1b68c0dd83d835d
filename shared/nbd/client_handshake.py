"""The client's side of the handshake ("Handshake"): bytes in, events out.

It asks for structured replies, then for metadata contexts if any are wanted, then for the export with GO, and falls
back to EXPORT_NAME where a server knows no GO. One option is in flight at a time; `_STEPS` says what follows what.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from shared.nbd import options
from shared.nbd.constants import (
    EXPORT_NAME_PADDING_BYTES,
    GREETING_MAGIC,
    MAX_OPTION_BYTES,
    MAX_PAYLOAD_BYTES,
    OPTION_ERROR_BIT,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    TransmissionFlag,
)
from shared.nbd.errors import FatalPeerError, NbdPeerError, NegotiationFailedError
from shared.nbd.exports import Agreement, BlockSizes


class State(Enum):
    """What the client waits for."""

    GREETING = "greeting"
    STRUCTURED_REPLY = "structured reply"
    CONTEXTS = "contexts"
    GO = "go"
    EXPORT_NAME = "export name"
    ENTERED = "entered"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes to the server, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Entered:
    """The transmission phase begins, with whatever the server has sent of it already."""

    agreement: Agreement
    blocks: BlockSizes
    early_bytes: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """Hang up after what was sent so far."""

    error: NbdPeerError


Event = Send | Entered | Ended


class ClientHandshake:
    """One handshake with a server, which speaks first: feed what arrives to `receive`."""

    def __init__(self, export_name: str, contexts: Sequence[str] = ()) -> None:
        self.state = State.GREETING
        self._name = export_name
        self._wanted_contexts = tuple(contexts)
        self._received = bytearray()
        self._events: list[Event] = []
        self._server_flags = HandshakeFlag(0)
        self._has_structured_replies = False
        self._contexts: dict[int, str] = {}
        self._export: tuple[int, TransmissionFlag] | None = None
        self._blocks = BlockSizes()
        self._enforced_block_bytes = 1

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Take what arrived; what follows from it, in order."""
        if self.state in {State.ENTERED, State.ENDED}:
            raise RuntimeError(f"the handshake is over: {self.state.value}")
        self._events = []
        self._received += data
        try:
            while self._advance():
                pass
        except NbdPeerError as error:
            self.state = State.ENDED
            self._events.append(Ended(error))
        return self._events

    def _advance(self) -> bool:
        """Handle one message; False when it is not complete, or none is due."""
        step = self._STEPS.get(self.state)
        return step is not None and step(self)

    # ------------------------------------------------------------------------------------------------------- the steps

    def _receive_greeting(self) -> bool:
        greeting = self._take(options.GREETING.size)
        if greeting is None:
            return False
        magic, option_magic, flags = options.GREETING.unpack(greeting)
        if (magic, option_magic) != (GREETING_MAGIC, OPTION_MAGIC):
            raise FatalPeerError("the server does not speak NBD's newstyle handshake")
        self._server_flags = HandshakeFlag(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))
        self._send(options.CLIENT_FLAGS.pack(self._server_flags))
        if HandshakeFlag.FIXED_NEWSTYLE in self._server_flags:
            self._ask(State.STRUCTURED_REPLY, Option.STRUCTURED_REPLY)
        else:
            self._ask(State.EXPORT_NAME, Option.EXPORT_NAME, self._name.encode())
        return True

    def _receive_structured_reply(self) -> bool:
        reply = self._take_reply(Option.STRUCTURED_REPLY)
        if reply is None:
            return False
        kind, payload = reply
        if kind == OptionReply.ACK:
            self._has_structured_replies = True
        else:
            self._insist_on_error(kind, payload)
        if self._has_structured_replies and self._wanted_contexts:
            query = options.pack_context_query(self._name, self._wanted_contexts)
            self._ask(State.CONTEXTS, Option.SET_META_CONTEXT, query)
        else:
            self._ask_to_go()
        return True

    def _receive_contexts(self) -> bool:
        reply = self._take_reply(Option.SET_META_CONTEXT)
        if reply is None:
            return False
        kind, payload = reply
        if kind == OptionReply.META_CONTEXT:
            fields = options.Fields(payload)
            context_id, name = fields.u32(), options.as_string(fields.rest())
            self._contexts[context_id] = name
            return True
        if kind != OptionReply.ACK:
            self._insist_on_error(kind, payload)
            self._contexts = {}
        self._ask_to_go()
        return True

    def _receive_go(self) -> bool:
        reply = self._take_reply(Option.GO)
        if reply is None:
            return False
        kind, payload = reply
        if kind == OptionReply.INFO:
            self._take_info(payload)
        elif kind == OptionReply.ACK:
            if self._export is None:
                raise FatalPeerError("the server accepted the export without describing it")
            self._enter(*self._export)
        elif kind == OptionReply.ERR_UNSUP:
            self._ask(State.EXPORT_NAME, Option.EXPORT_NAME, self._name.encode())
        else:
            self._insist_on_error(kind, payload)
            raise NegotiationFailedError(kind, _refusal_text(kind, payload))
        return True

    def _receive_export_name(self) -> bool:
        padding = 0 if HandshakeFlag.NO_ZEROES in self._server_flags else EXPORT_NAME_PADDING_BYTES
        reply = self._take(options.EXPORT_NAME_REPLY.size + padding)
        if reply is None:
            return False
        size_bytes, flags = options.EXPORT_NAME_REPLY.unpack_from(reply)
        self._enter(size_bytes, TransmissionFlag(flags))
        return True

    _STEPS: ClassVar[dict[State, Callable[["ClientHandshake"], bool]]] = {
        State.GREETING: _receive_greeting,
        State.STRUCTURED_REPLY: _receive_structured_reply,
        State.CONTEXTS: _receive_contexts,
        State.GO: _receive_go,
        State.EXPORT_NAME: _receive_export_name,
    }

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _ask_to_go(self) -> None:
        query = options.pack_export_query(self._name, [Info.EXPORT, Info.BLOCK_SIZE])
        self._ask(State.GO, Option.GO, query)

    def _take_info(self, payload: bytes) -> None:
        """Note a fact about the export; facts that we do not know are ignored, as they must be."""
        kind = int.from_bytes(payload[:2]) if payload else -1
        try:
            if kind == Info.EXPORT:
                _, size_bytes, flags = options.INFO_EXPORT.unpack(payload)
                self._export = (size_bytes, TransmissionFlag(flags))
            elif kind == Info.BLOCK_SIZE:
                _, minimum, preferred, maximum = options.INFO_BLOCK_SIZE.unpack(payload)
                self._blocks = BlockSizes(minimum=minimum, preferred=preferred, maximum=maximum)
                self._enforced_block_bytes = minimum
        except (struct.error, ValueError) as error:
            raise FatalPeerError(f"the server describes its export wrongly: {error}") from error

    def _enter(self, size_bytes: int, flags: TransmissionFlag) -> None:
        agreement = Agreement(
            name=self._name,
            size_bytes=size_bytes,
            flags=flags,
            has_structured_replies=self._has_structured_replies,
            enforced_block_bytes=self._enforced_block_bytes,
            max_payload_bytes=min(self._blocks.maximum, MAX_PAYLOAD_BYTES),
            contexts=self._contexts,
        )
        self.state = State.ENTERED
        early_bytes = bytes(self._received)
        self._received.clear()
        self._events.append(Entered(agreement, self._blocks, early_bytes))

    def _take_reply(self, option: Option) -> tuple[int, bytes] | None:
        """The next reply to the option in flight: its type and payload; None when it is not complete yet."""
        header_bytes = options.OPTION_REPLY.size
        if len(self._received) < header_bytes:
            return None
        magic, answered, kind, length = options.OPTION_REPLY.unpack_from(self._received)
        if magic != OPTION_REPLY_MAGIC or answered != option:
            raise FatalPeerError(f"not a reply to option {option.name}: magic {magic:#x}, option {answered}")
        if length > MAX_OPTION_BYTES:
            raise FatalPeerError(f"a reply of {length} bytes to option {option.name}")
        taken = self._take(header_bytes + length)
        return None if taken is None else (kind, taken[header_bytes:])

    def _insist_on_error(self, kind: int, payload: bytes) -> None:
        """A reply that is neither the expected one nor an error; or a refusal that means to hang up."""
        if not kind & OPTION_ERROR_BIT:
            raise FatalPeerError(f"an unexpected reply of type {kind} while waiting for: {self.state.value}")
        if kind in {OptionReply.ERR_TLS_REQD, OptionReply.ERR_SHUTDOWN}:
            raise NegotiationFailedError(kind, _refusal_text(kind, payload))

    def _take(self, length: int) -> bytes | None:
        if len(self._received) < length:
            return None
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    def _ask(self, state: State, option: Option, payload: bytes = b"") -> None:
        self._send(options.pack_option(option, payload))
        self.state = state

    def _send(self, data: bytes) -> None:
        self._events.append(Send(data))


def _refusal_text(kind: int, payload: bytes) -> str:
    try:
        name = OptionReply(kind).name
    except ValueError:
        name = f"{kind:#x}"
    sentence = payload.decode(errors="replace")
    return f"the server refused: {name}" + (f" ({sentence})" if sentence else "")
