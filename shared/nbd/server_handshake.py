"""The server's side of the handshake as a state machine ("Handshake"): bytes in, events out.

It knows what a client may say when, and what each option is answered with. It must not know where the bytes come from,
what an export is made of, or how TLS is done: it says `SecureNow` and waits to be told `secured()`.

    GREETED --client flags--> HAGGLING --GO, EXPORT_NAME--> ENTERED
                              HAGGLING --STARTTLS--> SECURING --secured()--> HAGGLING
                              any --ABORT, violation--> ENDED

An option is answered by the method that `_ANSWERS` names for it; an option without an entry is unknown, and refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from shared.nbd import options
from shared.nbd.constants import (
    EXPORT_NAME_PADDING_BYTES,
    MAX_OPTION_BYTES,
    OPTION_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    TransmissionFlag,
)
from shared.nbd.errors import FatalPeerError, NbdPeerError, OptionRefusedError
from shared.nbd.exports import Agreement, Catalogue, ExportDescription

OFFERED_FLAGS = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


class State(Enum):
    """Where a handshake stands."""

    GREETED = "greeted"  # our greeting is out; the client's flags are due
    HAGGLING = "haggling"
    SECURING = "securing"  # STARTTLS was accepted; nothing is read until TLS is up
    ENTERED = "entered"  # the transmission phase has begun
    ENDED = "ended"


class TlsPolicy(Enum):
    """Two of the document's three modes ("Server-side requirements"); a client is never left to choose (SELECTIVETLS)."""

    OFF = "off"  # NOTLS
    REQUIRED = "required"  # FORCEDTLS


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes to the client, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SecureNow:
    """After what was sent so far: start TLS, then call `secured()`."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The transmission phase begins, with whatever the client has sent of it already."""

    agreement: Agreement
    early_bytes: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """Hang up after what was sent so far; with the violation, if it was one."""

    error: NbdPeerError | None


Event = Send | SecureNow | Entered | Ended


class ServerHandshake:
    """One client's handshake. `greeting()` is sent first; then feed what arrives to `receive`."""

    def __init__(self, catalogue: Catalogue, tls: TlsPolicy = TlsPolicy.OFF) -> None:
        self.state = State.GREETED
        self._catalogue = catalogue
        self._tls = tls
        self._is_secured = False
        self._is_closing = False
        self._received = bytearray()
        self._skip_bytes = 0  # of an option that is too long
        self._events: list[Event] = []
        self._client_flags = HandshakeFlag(0)
        self._has_structured_replies = False
        self._contexts: dict[int, str] = {}
        self._contexts_of: str | None = None

    def greeting(self) -> bytes:
        """What the server says first."""
        return options.pack_greeting(OFFERED_FLAGS)

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Take what arrived; what follows from it, in order.

        Raises:
            FatalPeerError: bytes came when none may: in clear text between STARTTLS and TLS, or after the end.
        """
        if self.state not in {State.GREETED, State.HAGGLING}:
            raise FatalPeerError(f"bytes that belong to no message, in state {self.state.value}")
        self._events = []
        self._received += data
        try:
            while self._advance():
                pass
        except FatalPeerError as error:
            self._end(error)
        return self._events

    def secured(self) -> None:
        """TLS is up: negotiation starts afresh (`NBD_OPT_STARTTLS`)."""
        if self.state is not State.SECURING:
            raise RuntimeError(f"TLS was not asked for in state {self.state.value}")
        self._is_secured = True
        self._forget_negotiation()
        self.state = State.HAGGLING

    def begin_shutdown(self) -> None:
        """From now on every option but ABORT is refused ("Termination of the session during option haggling")."""
        self._is_closing = True

    # ------------------------------------------------------------------------------------------------------ the stream

    def _advance(self) -> bool:
        """Handle one message; False when it is not complete, or none is due."""
        if self._skip_bytes:
            return self._skip()
        match self.state:
            case State.GREETED:
                return self._receive_client_flags()
            case State.HAGGLING:
                return self._receive_option()
            case _:
                return False

    def _skip(self) -> bool:
        skipped = min(self._skip_bytes, len(self._received))
        del self._received[:skipped]
        self._skip_bytes -= skipped
        return skipped > 0

    def _receive_client_flags(self) -> bool:
        if len(self._received) < options.CLIENT_FLAGS.size:
            return False
        (flags,) = options.CLIENT_FLAGS.unpack(self._take(options.CLIENT_FLAGS.size))
        if flags & ~int(OFFERED_FLAGS):  # of the flag itself, ~ would forget the bits that have no name
            raise FatalPeerError(f"client flags {flags:#x} are not among those offered")
        self._client_flags = HandshakeFlag(flags)
        self.state = State.HAGGLING
        return True

    def _receive_option(self) -> bool:
        if len(self._received) < options.OPTION.size:
            return False
        magic, option, length = options.OPTION.unpack_from(self._received)
        if magic != OPTION_MAGIC:
            raise FatalPeerError(f"an option with magic {magic:#018x}")
        if length > MAX_OPTION_BYTES:
            self._take(options.OPTION.size)
            self._skip_bytes = length
            self._refuse_long(option, length)
            return True
        if len(self._received) < options.OPTION.size + length:
            return False
        payload = self._take(options.OPTION.size + length)[options.OPTION.size :]
        self._answer(option, payload)
        return True

    def _refuse_long(self, option: int, length: int) -> None:
        if option == Option.EXPORT_NAME or not self._is_fixed:
            raise FatalPeerError(f"option {option} with {length} bytes, and no way to refuse it")
        sentence = f"an option of {length} bytes, where {MAX_OPTION_BYTES} are allowed"
        try:
            self._admit(option)
            raise OptionRefusedError(OptionReply.ERR_TOO_BIG, sentence)
        except OptionRefusedError as refusal:
            self._refuse(option, refusal)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    # ------------------------------------------------------------------------------------------------------ the options

    def _answer(self, option: int, payload: bytes) -> None:
        if not self._is_fixed and option != Option.EXPORT_NAME:
            raise FatalPeerError(f"option {option} from a client that did not ask for fixed newstyle")
        try:
            self._admit(option)
            answer = self._ANSWERS.get(option, ServerHandshake._answer_unknown)
            answer(self, payload)
        except OptionRefusedError as refusal:
            if option == Option.EXPORT_NAME:
                raise FatalPeerError(f"no way to refuse EXPORT_NAME: {refusal.sentence}") from refusal
            self._refuse(option, refusal)

    def _answer_unknown(self, payload: bytes) -> None:
        del payload
        raise OptionRefusedError(OptionReply.ERR_UNSUP, "this server does not know the option")

    def _admit(self, option: int) -> None:
        """What applies before any option is looked at."""
        if option == Option.ABORT:
            return
        if self._is_closing:
            raise OptionRefusedError(OptionReply.ERR_SHUTDOWN, "the server is shutting down")
        if option != Option.STARTTLS and self._tls is TlsPolicy.REQUIRED and not self._is_secured:
            raise OptionRefusedError(OptionReply.ERR_TLS_REQD, "TLS comes first")

    def _answer_export_name(self, payload: bytes) -> None:
        name = options.as_string(payload)
        export = self._find_open(name)
        flags = self._flags(export)
        padding = b"" if HandshakeFlag.NO_ZEROES in self._client_flags else bytes(EXPORT_NAME_PADDING_BYTES)
        self._send(options.EXPORT_NAME_REPLY.pack(export.size_bytes, flags) + padding)
        self._enter(name, export, frozenset())

    def _answer_abort(self, payload: bytes) -> None:
        del payload  # to be ignored, not judged
        self._acknowledge(Option.ABORT)
        self._end(None)

    def _answer_list(self, payload: bytes) -> None:
        _insist_on_empty(payload)
        for export in self._catalogue():
            entry = options.pack_server(export.name, export.description)
            self._send(options.pack_reply(Option.LIST, OptionReply.SERVER, entry))
        self._acknowledge(Option.LIST)

    def _answer_starttls(self, payload: bytes) -> None:
        """What came along behind it was said in clear text, by the client or by somebody in between: it ends the session."""
        if self._tls is TlsPolicy.OFF:
            raise OptionRefusedError(OptionReply.ERR_POLICY, "this server is set up without TLS")
        _insist_on_empty(payload)
        if self._is_secured:
            raise options.malformed("TLS is up already")
        if self._received:
            raise FatalPeerError(f"{len(self._received)} bytes in clear text came along with STARTTLS")
        self._acknowledge(Option.STARTTLS)
        self._events.append(SecureNow())
        self.state = State.SECURING

    def _answer_info(self, payload: bytes) -> None:
        self._describe(Option.INFO, options.parse_export_query(payload))

    def _answer_go(self, payload: bytes) -> None:
        query = options.parse_export_query(payload)
        self._find_open(query.name)
        export = self._describe(Option.GO, query)
        self._enter(query.name, export, query.infos)

    def _answer_structured_reply(self, payload: bytes) -> None:
        _insist_on_empty(payload)
        self._has_structured_replies = True
        self._acknowledge(Option.STRUCTURED_REPLY)

    def _answer_list_meta_context(self, payload: bytes) -> None:
        self._insist_on_structured_replies()
        query = options.parse_context_query(payload)
        for name in self._find(query.name).contexts:
            if not query.queries or any(_lists(asked, name) for asked in query.queries):
                entry = options.pack_meta_context(0, name)
                self._send(options.pack_reply(Option.LIST_META_CONTEXT, OptionReply.META_CONTEXT, entry))
        self._acknowledge(Option.LIST_META_CONTEXT)

    def _answer_set_meta_context(self, payload: bytes) -> None:
        self._contexts = {}  # forgotten even when this fails
        self._insist_on_structured_replies()
        query = options.parse_context_query(payload)
        selected = [name for name in self._find(query.name).contexts if name in query.queries]
        for context_id, name in enumerate(selected, start=1):
            entry = options.pack_meta_context(context_id, name)
            self._send(options.pack_reply(Option.SET_META_CONTEXT, OptionReply.META_CONTEXT, entry))
            self._contexts[context_id] = name
        self._contexts_of = query.name
        self._acknowledge(Option.SET_META_CONTEXT)

    _ANSWERS: ClassVar[dict[int, Callable[["ServerHandshake", bytes], None]]] = {
        Option.EXPORT_NAME: _answer_export_name,
        Option.ABORT: _answer_abort,
        Option.LIST: _answer_list,
        Option.STARTTLS: _answer_starttls,
        Option.INFO: _answer_info,
        Option.GO: _answer_go,
        Option.STRUCTURED_REPLY: _answer_structured_reply,
        Option.LIST_META_CONTEXT: _answer_list_meta_context,
        Option.SET_META_CONTEXT: _answer_set_meta_context,
    }

    # ---------------------------------------------------------------------------------------------------------- helpers

    @property
    def _is_fixed(self) -> bool:
        return HandshakeFlag.FIXED_NEWSTYLE in self._client_flags

    def _forget_negotiation(self) -> None:
        self._has_structured_replies = False
        self._contexts = {}
        self._contexts_of = None

    def _find(self, name: str) -> ExportDescription:
        """The export of that name; the empty name stands for the only one there is."""
        exports = self._catalogue()
        for export in exports:
            if export.name == name:
                return export
        if not name and len(exports) == 1:
            return exports[0]
        sentence = (
            f"no export is named {name!r}" if name else "there is no default export: name one of those listed"
        )
        raise OptionRefusedError(OptionReply.ERR_UNKNOWN, sentence)

    def _find_open(self, name: str) -> ExportDescription:
        """The export of that name, for a client that is about to use it."""
        export = self._find(name)
        if export.closed_because:
            raise OptionRefusedError(OptionReply.ERR_POLICY, export.closed_because)
        return export

    def _flags(self, export: ExportDescription) -> TransmissionFlag:
        """DF belongs to structured replies (`NBD_FLAG_SEND_DF`)."""
        if self._has_structured_replies:
            return export.flags | TransmissionFlag.SEND_DF
        return export.flags

    def _describe(self, option: Option, query: options.ExportQuery) -> ExportDescription:
        export = self._find(query.name)
        infos = [options.pack_info_export(export.size_bytes, self._flags(export))]
        if Info.NAME in query.infos:
            infos.append(options.pack_info_text(Info.NAME, export.name))
        if Info.DESCRIPTION in query.infos:
            infos.append(options.pack_info_text(Info.DESCRIPTION, export.description))
        if Info.BLOCK_SIZE in query.infos:
            infos.append(options.pack_info_block_size(export.blocks))
        for info in infos:
            self._send(options.pack_reply(option, OptionReply.INFO, info))
        self._acknowledge(option)
        return export

    def _enter(self, name: str, export: ExportDescription, infos: frozenset[int]) -> None:
        """Contexts hold only for the export that they were chosen for; block sizes only if they were asked for."""
        agreement = Agreement(
            name=export.name,
            size_bytes=export.size_bytes,
            flags=self._flags(export),
            has_structured_replies=self._has_structured_replies,
            enforced_block_bytes=export.blocks.minimum if Info.BLOCK_SIZE in infos else 1,
            max_payload_bytes=export.blocks.maximum,
            contexts=self._contexts if name == self._contexts_of else {},
        )
        self.state = State.ENTERED
        self._events.append(Entered(agreement, self._take(len(self._received))))

    def _insist_on_structured_replies(self) -> None:
        if not self._has_structured_replies:
            raise OptionRefusedError(OptionReply.ERR_INVALID, "structured replies must be negotiated first")

    def _send(self, data: bytes) -> None:
        self._events.append(Send(data))

    def _acknowledge(self, option: Option) -> None:
        self._send(options.pack_reply(option, OptionReply.ACK))

    def _refuse(self, option: int, refusal: OptionRefusedError) -> None:
        self._send(options.pack_refusal(option, refusal))

    def _end(self, error: NbdPeerError | None) -> None:
        self._received.clear()
        self.state = State.ENDED
        self._events.append(Ended(error))


def _insist_on_empty(payload: bytes) -> None:
    if payload:
        raise options.malformed(f"{len(payload)} bytes of data where none belong")


def _lists(query: str, name: str) -> bool:
    """Whether a LIST query finds a context: by its name, or by its namespace alone as a wildcard."""
    return query == name or (query.endswith(":") and name.startswith(query))
