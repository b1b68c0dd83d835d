"""The client's side of the handshake, against our own server's and against servers that know less."""

import struct

import pytest

from shared.nbd.client_handshake import ClientHandshake, Ended, Entered, Send, State
from shared.nbd.constants import HandshakeFlag, Option, OptionReply, TransmissionFlag
from shared.nbd.errors import FatalPeerError, NegotiationFailedError
from shared.nbd.exports import BlockSizes, ExportDescription
from shared.nbd.options import pack_greeting, pack_info_export, pack_reply
from shared.nbd.server_handshake import Entered as ServerEntered
from shared.nbd.server_handshake import Send as ServerSend
from shared.nbd.server_handshake import ServerHandshake, TlsPolicy

FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
BLOCKS = BlockSizes(minimum=4096, preferred=8192, maximum=1 << 20)
EXPORT = ExportDescription(
    name="v", size_bytes=1 << 20, flags=FLAGS, blocks=BLOCKS, contexts=("base:allocation", "cutover:region")
)
FIXED = pack_greeting(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


def shake_hands(
    client: ClientHandshake, server: ServerHandshake
) -> tuple[Entered | Ended, ServerEntered | None]:
    """Carry bytes to and fro until the client is through."""
    entered = None
    to_client = server.greeting()
    while True:
        to_server = b""
        for event in client.receive(to_client):
            if not isinstance(event, Send):
                return event, entered
            to_server += event.data
        to_client = b""
        for answer in server.receive(to_server):
            if isinstance(answer, ServerSend):
                to_client += answer.data
            elif isinstance(answer, ServerEntered):
                entered = answer


def test_both_sides_agree() -> None:
    client = ClientHandshake("v", ["base:allocation", "cutover:region"])
    event, entered = shake_hands(client, ServerHandshake(lambda: (EXPORT,)))
    assert isinstance(event, Entered)
    assert entered is not None
    assert event.agreement == entered.agreement
    assert event.blocks == BLOCKS
    assert event.agreement.contexts == {1: "base:allocation", 2: "cutover:region"}


def test_unknown_export_is_told_with_the_servers_sentence() -> None:
    event, _ = shake_hands(ClientHandshake("w"), ServerHandshake(lambda: (EXPORT,)))
    assert isinstance(event, Ended)
    assert isinstance(event.error, NegotiationFailedError)
    assert event.error.reply == OptionReply.ERR_UNKNOWN
    assert "'w'" in str(event.error)


def test_server_that_insists_on_tls_is_told_apart() -> None:
    event, _ = shake_hands(ClientHandshake("v"), ServerHandshake(lambda: (EXPORT,), TlsPolicy.REQUIRED))
    assert isinstance(event, Ended)
    assert isinstance(event.error, NegotiationFailedError)
    assert event.error.reply == OptionReply.ERR_TLS_REQD


def test_server_that_knows_nothing_new_is_asked_by_export_name() -> None:
    client = ClientHandshake("v", ["base:allocation"])
    client.receive(FIXED)
    client.receive(pack_reply(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP))
    assert client.state is State.GO
    (sent,) = client.receive(pack_reply(Option.GO, OptionReply.ERR_UNSUP))
    assert sent == Send(struct.pack(">8sII1s", b"IHAVEOPT", Option.EXPORT_NAME, 1, b"v"))
    (entered,) = client.receive(struct.pack(">QH", 1 << 20, FLAGS) + b"early")
    assert isinstance(entered, Entered)
    assert (entered.agreement.size_bytes, entered.agreement.flags) == (1 << 20, FLAGS)
    assert not entered.agreement.has_structured_replies
    assert entered.early_bytes == b"early"


def test_oldest_newstyle_server_pads_with_zeroes() -> None:
    client = ClientHandshake("v")
    flags, option = client.receive(pack_greeting(HandshakeFlag(0)))
    assert flags == Send(bytes(4))
    assert isinstance(option, Send)
    assert option.data[8:12] == struct.pack(">I", Option.EXPORT_NAME)
    assert client.receive(struct.pack(">QH", 1 << 20, FLAGS)) == []
    (entered,) = client.receive(bytes(124))
    assert isinstance(entered, Entered)


@pytest.mark.parametrize(
    "answer",
    [
        b"NBDMAGIC" + struct.pack(">Q", 0x00420281861253) + bytes(2),  # oldstyle
        b"HTTP/1.1 400 Bad Request",
    ],
)
def test_greeting_of_something_else_is_fatal(answer: bytes) -> None:
    (event,) = ClientHandshake("v").receive(answer)
    assert isinstance(event, Ended)
    assert isinstance(event.error, FatalPeerError)


@pytest.mark.parametrize(
    "answer",
    [
        pack_reply(Option.LIST, OptionReply.ACK),  # not what was asked
        pack_reply(Option.STRUCTURED_REPLY, OptionReply.INFO),
        struct.pack(">QIII", 0x3E889045565A9, Option.STRUCTURED_REPLY, OptionReply.ACK, 1 << 30),
    ],
)
def test_nonsense_from_the_server_is_fatal(answer: bytes) -> None:
    client = ClientHandshake("v")
    client.receive(FIXED)
    (event,) = client.receive(answer)
    assert isinstance(event, Ended)
    assert isinstance(event.error, FatalPeerError)


@pytest.mark.parametrize(
    "info",
    [b"\0\0short", struct.pack(">HIII", 3, 3, 4096, 1 << 20), struct.pack(">HIII", 3, 512, 4096, 512)],
)
def test_export_described_wrongly_is_fatal(info: bytes) -> None:
    client = ClientHandshake("v")
    client.receive(FIXED + pack_reply(Option.STRUCTURED_REPLY, OptionReply.ACK))
    event = client.receive(pack_reply(Option.GO, OptionReply.INFO, info))[-1]
    assert isinstance(event, Ended)
    assert isinstance(event.error, FatalPeerError)


def test_acknowledged_without_a_description_is_fatal() -> None:
    client = ClientHandshake("v")
    client.receive(FIXED + pack_reply(Option.STRUCTURED_REPLY, OptionReply.ACK))
    (event,) = client.receive(pack_reply(Option.GO, OptionReply.ACK))
    assert isinstance(event, Ended)


def test_unknown_information_is_ignored() -> None:
    client = ClientHandshake("v")
    client.receive(FIXED + pack_reply(Option.STRUCTURED_REPLY, OptionReply.ACK))
    answer = pack_reply(Option.GO, OptionReply.INFO, b"\x12\x34whatever")
    answer += pack_reply(Option.GO, OptionReply.INFO, pack_info_export(1 << 20, FLAGS))
    (event,) = client.receive(answer + pack_reply(Option.GO, OptionReply.ACK))
    assert isinstance(event, Entered)
