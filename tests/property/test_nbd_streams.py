"""However a byte stream is cut into pieces, the same comes out of it."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from shared.nbd import options, replies
from shared.nbd.client_handshake import ClientHandshake
from shared.nbd.client_handshake import Entered as ClientEntered
from shared.nbd.client_replies import Data, ReplyParser
from shared.nbd.constants import MAX_OPTION_BYTES, Command, Info, NbdError, Option, TransmissionFlag
from shared.nbd.exports import Agreement, ExportDescription
from shared.nbd.requests import RequestParser
from shared.nbd.server_handshake import Ended, Entered, SecureNow, Send, ServerHandshake, State, TlsPolicy

SIZE = 1 << 16
INLINE = 600
FLAGS = TransmissionFlag(0b1101_1110_1101)
EXPORTS = (
    ExportDescription(name="v", size_bytes=SIZE, flags=FLAGS, contexts=("base:allocation", "cutover:region")),
    ExportDescription(name="w", size_bytes=SIZE, flags=FLAGS | TransmissionFlag.READ_ONLY),
)

cuts = st.lists(st.integers(1, 200), max_size=60)


def pieces(data: bytes, lengths: list[int]) -> list[bytes]:
    cut = []
    for length in lengths:
        cut.append(data[:length])
        data = data[length:]
    return [piece for piece in [*cut, data] if piece]


# ----------------------------------------------------------------------------------------------------------- requests


@st.composite
def client_requests(draw: st.DrawFn) -> bytes:
    """One request: plausible, wrong, or garbage."""
    command = draw(st.sampled_from([*Command, 9]))
    flags = draw(st.sampled_from([0, 0, 0, 1, 2, 4, 8, 16, 32]))
    offset = draw(st.sampled_from([0, 1, 512, SIZE - 512, SIZE, (1 << 64) - 1]))
    length = draw(st.sampled_from([0, 1, 512, INLINE + 1, SIZE + 1]))
    magic = draw(st.sampled_from([0x25609513] * 30 + [0]))
    header = struct.pack(">IHHQQI", magic, flags, command, draw(st.integers(0, 3)), offset, length)
    return header + draw(st.binary(min_size=length, max_size=length)) if command == Command.WRITE else header


def outcome(stream: list[bytes], agreement: Agreement) -> tuple[list[object], list[object], bool, bool]:
    """What the parser makes of a stream, with payloads; a driver as the export has one."""
    parser = RequestParser(agreement, INLINE)
    found: list[object] = []
    verdicts: list[object] = []
    buffer = bytearray()
    payload: bytearray | None = None
    for piece in stream:
        buffer += piece
        while not parser.is_finished and parser.violation is None:
            if parser.pending is not None:
                payload = bytearray() if payload is None else payload
                taken = buffer[: parser.pending[4] - len(payload)]
                payload += taken
                del buffer[: len(taken)]
                if len(payload) < parser.pending[4]:
                    break
                found.append((*parser.pending[:5], bytes(payload)))
                parser.pending = payload = None
            requests, consumed = parser.parse(bytes(buffer), 0, len(buffer))
            for command, flags, cookie, offset, length, at in requests:
                data = bytes(buffer[at : at + length]) if command == Command.WRITE else b""
                found.append((command, flags, cookie, offset, length, data))
            del buffer[:consumed]
            if not parser.has_more and parser.pending is None:
                break
    verdicts.extend(parser.verdicts)
    return found, verdicts, parser.is_finished, parser.violation is not None


@given(st.lists(client_requests(), max_size=12), cuts, st.sampled_from([1, 512]), st.booleans())
def test_requests_do_not_depend_on_the_cuts(
    requests: list[bytes], lengths: list[int], block: int, is_read_only: bool
) -> None:
    flags = FLAGS | TransmissionFlag.READ_ONLY if is_read_only else FLAGS
    agreement = Agreement(
        name="v", size_bytes=SIZE, flags=flags, enforced_block_bytes=block, contexts={1: "x"}
    )
    stream = b"".join(requests)
    whole = outcome([stream], agreement)
    assert outcome(pieces(stream, lengths), agreement) == whole


@given(st.lists(client_requests(), max_size=12))
def test_no_request_leaves_the_export(requests: list[bytes]) -> None:
    agreement = Agreement(name="v", size_bytes=SIZE, flags=FLAGS, enforced_block_bytes=512, contexts={1: "x"})
    found, verdicts, _, _ = outcome([b"".join(requests)], agreement)
    for request in found:
        assert isinstance(request, tuple)
        command, _, _, offset, length, _ = request
        assert offset + length <= SIZE
        assert offset % 512 == length % 512 == 0
        assert length or command == Command.FLUSH
    assert all(error == 0 or error in list(NbdError) for _, _, error, _ in verdicts)  # type: ignore[misc,has-type]


@given(st.binary(max_size=400))
def test_garbage_is_answered_or_ends_the_connection(garbage: bytes) -> None:
    agreement = Agreement(name="v", size_bytes=SIZE, flags=FLAGS)
    found, verdicts, _, is_violated = outcome([garbage], agreement)
    if len(garbage) >= 28 and not garbage.startswith(b"\x25\x60\x95\x13"):
        assert is_violated
        assert not found
        assert not verdicts


# ----------------------------------------------------------------------------------------------------------- handshake


def export_query(name: str) -> bytes:
    return options.pack_export_query(name, [Info.EXPORT, Info.BLOCK_SIZE])


PAYLOADS = {
    "nothing": b"",
    "garbage": b"\xff\0\xff\0\xff",
    "name": b"v",
    "query": export_query("v"),
    "unknown export": export_query("nosuch"),
    "contexts": options.pack_context_query("v", ["base:allocation", "cutover:region"]),
    "other contexts": options.pack_context_query("w", ["base:"]),
    "too long": bytes(MAX_OPTION_BYTES + 1),
}
option_messages = st.builds(
    lambda option, payload: struct.pack(">8sII", b"IHAVEOPT", option, len(payload)) + payload,
    st.sampled_from([*Option, 4, 11, 99]),
    st.sampled_from(list(PAYLOADS.values())) | st.binary(max_size=64),
)


def negotiated(stream: list[bytes], tls: TlsPolicy) -> tuple[bytes, list[object], State]:
    """Everything that is sent, what else happens, and the state in the end."""
    handshake = ServerHandshake(lambda: EXPORTS, tls)
    sent, early = b"", b""
    happened: list[object] = []
    for piece in stream:
        if handshake.state is State.ENTERED:
            early += piece
            continue
        if handshake.state not in {State.GREETED, State.HAGGLING}:
            break
        for event in handshake.receive(piece):
            match event:
                case Send(data):
                    sent += data
                case Entered(agreement, early_bytes):
                    happened.append(agreement)
                    early += early_bytes
                case Ended(error):
                    happened.append(str(error))
                case SecureNow():
                    happened.append("secure")
    return sent, [*happened, early], handshake.state


@given(st.lists(option_messages, max_size=8), cuts, st.sampled_from([0, 1, 2, 3, 4]))
def test_handshake_does_not_depend_on_the_cuts(messages: list[bytes], lengths: list[int], flags: int) -> None:
    stream = struct.pack(">I", flags) + b"".join(messages)
    assert negotiated(pieces(stream, lengths), TlsPolicy.OFF) == negotiated([stream], TlsPolicy.OFF)


@given(option_messages, st.lists(option_messages, max_size=3), st.sampled_from(TlsPolicy), st.booleans())
def test_every_option_in_every_state_is_answered_once_or_ends_the_session(
    message: bytes, before: list[bytes], tls: TlsPolicy, is_closing: bool
) -> None:
    handshake = ServerHandshake(lambda: EXPORTS, tls)
    for earlier in [struct.pack(">I", 3), *before]:
        if handshake.state in {State.GREETED, State.HAGGLING}:
            handshake.receive(earlier)
        if handshake.state is State.SECURING:
            handshake.secured()
    if handshake.state is not State.HAGGLING:
        return
    if is_closing:
        handshake.begin_shutdown()
    (option,) = struct.unpack_from(">I", message, 8)
    events = handshake.receive(message)
    final = [event for event in events if isinstance(event, Send) and is_final(event.data, option)]
    ended = any(isinstance(event, Ended) and event.error is not None for event in events)
    entered_by_name = option == Option.EXPORT_NAME and any(isinstance(event, Entered) for event in events)
    assert len(final) + ended + entered_by_name == 1


def is_final(reply: bytes, option: int) -> bool:
    """Whether this reply ends the answer to an option."""
    if option == Option.EXPORT_NAME:
        return False
    magic, answered, kind = struct.unpack_from(">QII", reply)
    assert magic == 0x3E889045565A9
    assert answered == option
    return kind == 1 or bool(kind >> 31)


@given(cuts, cuts, st.sampled_from(["v", "w"]), st.booleans())
def test_client_and_server_agree_however_the_bytes_travel(
    to_client: list[int], to_server: list[int], name: str, wants_contexts: bool
) -> None:
    server = ServerHandshake(lambda: EXPORTS)
    client = ClientHandshake(name, ["base:allocation"] if wants_contexts else [])
    outgoing = server.greeting()
    agreed: list[Agreement] = []
    while outgoing:
        answer = b""
        for piece in pieces(outgoing, to_client):
            for event in client.receive(piece):
                if isinstance(event, ClientEntered):
                    agreed.append(event.agreement)
                else:
                    answer += event.data  # type: ignore[union-attr]
        outgoing = b""
        for piece in pieces(answer, to_server):
            for reply in server.receive(piece):
                if isinstance(reply, Entered):
                    agreed.append(reply.agreement)
                else:
                    assert isinstance(reply, Send)
                    outgoing += reply.data
    assert len(agreed) == 2
    assert agreed[0] == agreed[1]


# ------------------------------------------------------------------------------------------------------------- replies

REPLIES = {
    1: (Command.READ, 0, 512, replies.data_chunk(1, 0, 512) + b"d" * 512),
    2: (Command.WRITE, 0, 512, replies.success(2)),
    3: (Command.READ, 512, 16, replies.success(3) + b"0123456789abcdef"),
    4: (Command.READ, 0, 512, replies.error_chunk(4, 5, "gone")),
    5: (Command.BLOCK_STATUS, 0, 1024, replies.status_chunk(5, 1, [(512, 0), (512, 3)], is_last=True)),
    6: (Command.READ, 0, 0, replies.empty_success(6)),
    7: (Command.FLUSH, 0, 0, replies.simple_error(7, 5)),
}


def parsed(stream: list[bytes]) -> list[object]:
    """What a client makes of it; pieces of data that belong together are joined."""
    parser = ReplyParser()
    for cookie, (command, offset, length, _) in REPLIES.items():
        parser.expect(command, cookie, offset, length)
    found: list[object] = []
    content: dict[int, bytes] = {}
    buffer = b""
    for piece in stream:
        buffer += piece
        got, consumed = parser.parse(buffer, 0, len(buffer))
        for reply in got:
            if isinstance(reply, Data):
                content[reply.cookie] = (
                    content.get(reply.cookie, b"") + buffer[reply.position :][: reply.length]
                )
            else:
                found.append(reply)
        buffer = buffer[consumed:]
    assert parser.outstanding == 0
    return [*found, content]


@given(st.permutations(list(REPLIES)), cuts)
def test_replies_do_not_depend_on_the_cuts(order: list[int], lengths: list[int]) -> None:
    stream = b"".join(REPLIES[cookie][3] for cookie in order)
    assert parsed(pieces(stream, lengths)) == parsed([stream])
