"""The server's side of the handshake: each option, in and out of turn."""

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.nbd import options
from shared.nbd.constants import MAX_OPTION_BYTES, HandshakeFlag, Info, Option, OptionReply, TransmissionFlag
from shared.nbd.errors import FatalPeerError
from shared.nbd.exports import BlockSizes, ExportDescription
from shared.nbd.server_handshake import (
    Ended,
    Entered,
    Event,
    SecureNow,
    Send,
    ServerHandshake,
    State,
    TlsPolicy,
)

FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
BOTH = struct.pack(">I", HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
VOL1 = ExportDescription(
    name="vol1",
    size_bytes=1 << 20,
    flags=FLAGS,
    description="the first",
    blocks=BlockSizes(minimum=512, preferred=4096, maximum=1 << 20),
    contexts=("base:allocation", "cutover:region"),
)
VOL2 = ExportDescription(name="vol2", size_bytes=1 << 21, flags=FLAGS)

Reply = tuple[int, int, bytes]  # option, type, payload


def begin(
    *exports: ExportDescription, tls: TlsPolicy = TlsPolicy.OFF, client_flags: bytes = BOTH
) -> ServerHandshake:
    handshake = ServerHandshake(lambda: exports or (VOL1,), tls)
    assert handshake.receive(client_flags) == []
    return handshake


def ask(handshake: ServerHandshake, option: int, payload: bytes = b"") -> list[Event]:
    return handshake.receive(struct.pack(">8sII", b"IHAVEOPT", option, len(payload)) + payload)


def replies(events: Sequence[Event]) -> list[Reply]:
    found = []
    for event in events:
        if isinstance(event, Send):
            magic, option, kind, length = struct.unpack_from(">QIII", event.data)
            assert magic == 0x3E889045565A9
            assert len(event.data) == 20 + length
            found.append((option, kind, event.data[20:]))
    return found


def kinds(events: Sequence[Event]) -> list[int]:
    return [kind for _, kind, _ in replies(events)]


def export_query(name: bytes, *infos: int) -> bytes:
    return struct.pack(f">I{len(name)}sH{len(infos)}H", len(name), name, len(infos), *infos)


def context_query(name: bytes, *queries: bytes) -> bytes:
    packed = b"".join(struct.pack(">I", len(query)) + query for query in queries)
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + packed


def entered(events: Sequence[Event]) -> Entered:
    (event,) = [event for event in events if isinstance(event, Entered)]
    return event


def test_greeting_is_fixed_newstyle_without_zeroes() -> None:
    assert ServerHandshake(lambda: ()).greeting() == b"NBDMAGICIHAVEOPT\x00\x03"


@pytest.mark.parametrize("flags", [4, 1 << 31, 7])
def test_unknown_client_flags_end_the_session(flags: int) -> None:
    (event,) = ServerHandshake(lambda: (VOL1,)).receive(struct.pack(">I", flags))
    assert isinstance(event, Ended)
    assert event.error is not None


def test_wrong_option_magic_ends_the_session() -> None:
    (event,) = begin().receive(b"IHAVEOPX" + bytes(8))
    assert isinstance(event, Ended)
    assert event.error is not None


@pytest.mark.parametrize("name", [b"vol1", b""])
def test_go_enters_by_name_and_by_default(name: bytes) -> None:
    events = ask(begin(), Option.GO, export_query(name))
    assert replies(events) == [
        (Option.GO, OptionReply.INFO, struct.pack(">HQH", 0, 1 << 20, FLAGS)),
        (Option.GO, OptionReply.ACK, b""),
    ]
    agreement = entered(events).agreement
    assert (agreement.name, agreement.size_bytes, agreement.flags) == ("vol1", 1 << 20, FLAGS)
    assert not agreement.has_structured_replies


def test_default_export_is_unknown_when_there_are_several() -> None:
    handshake = begin(VOL1, VOL2)
    assert kinds(ask(handshake, Option.GO, export_query(b""))) == [OptionReply.ERR_UNKNOWN]
    assert handshake.state is State.HAGGLING


def test_all_infos_that_are_asked_for_are_told_and_unknown_ones_ignored() -> None:
    query = export_query(b"vol1", Info.BLOCK_SIZE, Info.NAME, 77, Info.DESCRIPTION)
    told = {reply[2] for reply in replies(ask(begin(), Option.INFO, query))}
    assert told == {
        struct.pack(">HQH", 0, 1 << 20, FLAGS),
        b"\x00\x01vol1",
        b"\x00\x02the first",
        struct.pack(">HIII", 3, 512, 4096, 1 << 20),
        b"",
    }


def test_info_does_not_enter() -> None:
    handshake = begin()
    assert kinds(ask(handshake, Option.INFO, export_query(b"vol1"))) == [OptionReply.INFO, OptionReply.ACK]
    assert handshake.state is State.HAGGLING


def test_block_size_is_enforced_only_when_go_asked_for_it() -> None:
    handshake = begin()
    ask(handshake, Option.INFO, export_query(b"vol1", Info.BLOCK_SIZE))
    assert entered(ask(handshake, Option.GO, export_query(b"vol1"))).agreement.enforced_block_bytes == 1
    asked = entered(ask(begin(), Option.GO, export_query(b"vol1", Info.BLOCK_SIZE)))
    assert asked.agreement.enforced_block_bytes == 512


@pytest.mark.parametrize(
    "option", [Option.INFO, Option.GO, Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT]
)
def test_unknown_export_is_refused_and_haggling_goes_on(option: Option) -> None:
    handshake = begin()
    ask(handshake, Option.STRUCTURED_REPLY)
    query = export_query(b"nosuch") if option in {Option.INFO, Option.GO} else context_query(b"nosuch")
    assert kinds(ask(handshake, option, query)) == [OptionReply.ERR_UNKNOWN]
    assert kinds(ask(handshake, Option.GO, export_query(b"vol1")))[-1] == OptionReply.ACK


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        struct.pack(">I", 100) + b"vol1",  # name longer than the payload
        export_query(b"vol1") + b"x",
        struct.pack(">I4sHH", 4, b"vol1", 2, 0),  # two infos announced, one there
        export_query(b"\xff\xfe"),
        export_query(b"a\0b"),
        export_query(b"n" * 4097),
    ],
)
@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
def test_malformed_query_is_refused_and_haggling_goes_on(option: Option, payload: bytes) -> None:
    handshake = begin()
    assert kinds(ask(handshake, option, payload)) == [OptionReply.ERR_INVALID]
    assert kinds(ask(handshake, Option.GO, export_query(b"vol1")))[-1] == OptionReply.ACK


def test_list_names_every_export_with_its_description() -> None:
    events = ask(begin(VOL1, VOL2), Option.LIST)
    assert [reply[1:] for reply in replies(events)] == [
        (OptionReply.SERVER, b"\0\0\0\x04vol1the first"),
        (OptionReply.SERVER, b"\0\0\0\x04vol2"),
        (OptionReply.ACK, b""),
    ]


@pytest.mark.parametrize("option", [Option.LIST, Option.STRUCTURED_REPLY])
def test_data_where_none_belongs_is_refused(option: Option) -> None:
    assert kinds(ask(begin(), option, b"x")) == [OptionReply.ERR_INVALID]


def test_abort_is_acknowledged_whatever_comes_with_it() -> None:
    events = ask(begin(), Option.ABORT, b"goodbye")
    assert kinds(events) == [OptionReply.ACK]
    assert events[-1] == Ended(None)


@pytest.mark.parametrize("option", [4, 11, 12, 0, 0xFFFFFFFF])
def test_unknown_options_are_unsupported_and_their_payload_is_skipped(option: int) -> None:
    handshake = begin()
    assert kinds(ask(handshake, option, b"whatever this may be")) == [OptionReply.ERR_UNSUP]
    assert kinds(ask(handshake, Option.GO, export_query(b"vol1")))[-1] == OptionReply.ACK


def test_oversize_option_is_refused_at_once_and_its_payload_is_skipped() -> None:
    handshake = begin()
    header = struct.pack(">8sII", b"IHAVEOPT", Option.INFO, MAX_OPTION_BYTES + 1)
    assert kinds(handshake.receive(header)) == [OptionReply.ERR_TOO_BIG]
    assert handshake.receive(bytes(MAX_OPTION_BYTES)) == []
    rest_and_next = b"\0" + options.pack_option(Option.LIST)
    assert kinds(handshake.receive(rest_and_next)) == [OptionReply.SERVER, OptionReply.ACK]


def test_export_name_enters_without_zeroes_when_both_agreed() -> None:
    events = ask(begin(), Option.EXPORT_NAME, b"vol1")
    assert events[0] == Send(struct.pack(">QH", 1 << 20, FLAGS))
    assert entered(events).agreement.name == "vol1"


@pytest.mark.parametrize("client_flags", [0, HandshakeFlag.FIXED_NEWSTYLE])
def test_export_name_pads_with_zeroes_for_older_clients(client_flags: int) -> None:
    events = ask(begin(client_flags=struct.pack(">I", client_flags)), Option.EXPORT_NAME, b"vol1")
    assert events[0] == Send(struct.pack(">QH124x", 1 << 20, FLAGS))


@pytest.mark.parametrize("name", [b"nosuch", b"\xff", b"n" * 5000])
def test_export_name_that_cannot_be_had_ends_the_session(name: bytes) -> None:
    (event,) = ask(begin(), Option.EXPORT_NAME, name)
    assert isinstance(event, Ended)
    assert event.error is not None


def test_client_without_fixed_newstyle_has_export_name_alone() -> None:
    (event,) = ask(begin(client_flags=bytes(4)), Option.LIST)
    assert isinstance(event, Ended)


def test_bytes_behind_the_handshake_belong_to_the_transmission() -> None:
    handshake = begin()
    events = handshake.receive(options.pack_option(Option.EXPORT_NAME, b"vol1") + b"first request")
    assert entered(events).early_bytes == b"first request"
    with pytest.raises(FatalPeerError):
        handshake.receive(b"more")


def test_structured_replies_bring_df() -> None:
    handshake = begin()
    assert kinds(ask(handshake, Option.STRUCTURED_REPLY)) == [OptionReply.ACK]
    agreement = entered(ask(handshake, Option.GO, export_query(b"vol1"))).agreement
    assert agreement.has_structured_replies
    assert agreement.flags == FLAGS | TransmissionFlag.SEND_DF


@pytest.mark.parametrize("option", [Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT])
def test_contexts_need_structured_replies(option: Option) -> None:
    assert kinds(ask(begin(), option, context_query(b"vol1"))) == [OptionReply.ERR_INVALID]


@pytest.mark.parametrize(
    ("queries", "found"),
    [
        ((), [b"base:allocation", b"cutover:region"]),
        ((b"base:",), [b"base:allocation"]),
        ((b"cutover:",), [b"cutover:region"]),
        ((b"base:allocation", b"base:"), [b"base:allocation"]),
        ((b"base:nosuch", b"other:"), []),
    ],
)
def test_list_meta_context_matches_names_and_namespaces(
    queries: tuple[bytes, ...], found: list[bytes]
) -> None:
    handshake = begin()
    ask(handshake, Option.STRUCTURED_REPLY)
    answered = replies(ask(handshake, Option.LIST_META_CONTEXT, context_query(b"vol1", *queries)))
    assert [payload[4:] for _, kind, payload in answered if kind == OptionReply.META_CONTEXT] == found
    assert answered[-1][1] == OptionReply.ACK


@pytest.mark.parametrize(
    ("queries", "selected"),
    [
        ((), {}),
        ((b"base:",), {}),  # a wildcard selects nothing
        ((b"cutover:region", b"base:allocation"), {1: "base:allocation", 2: "cutover:region"}),
        ((b"other:thing", b"cutover:region"), {1: "cutover:region"}),
    ],
)
def test_set_meta_context_selects_by_exact_name(queries: tuple[bytes, ...], selected: dict[int, str]) -> None:
    handshake = begin()
    ask(handshake, Option.STRUCTURED_REPLY)
    told = replies(ask(handshake, Option.SET_META_CONTEXT, context_query(b"vol1", *queries)))[:-1]
    assert [payload for _, _, payload in told] == [
        struct.pack(">I", number) + name.encode() for number, name in selected.items()
    ]
    assert entered(ask(handshake, Option.GO, export_query(b"vol1"))).agreement.contexts == selected


def test_contexts_of_another_export_do_not_count() -> None:
    handshake = begin(VOL1, VOL2)
    ask(handshake, Option.STRUCTURED_REPLY)
    ask(handshake, Option.SET_META_CONTEXT, context_query(b"vol1", b"base:allocation"))
    assert entered(ask(handshake, Option.GO, export_query(b"vol2"))).agreement.contexts == {}


def test_failed_set_meta_context_forgets_what_was_selected() -> None:
    handshake = begin()
    ask(handshake, Option.STRUCTURED_REPLY)
    ask(handshake, Option.SET_META_CONTEXT, context_query(b"vol1", b"base:allocation"))
    failed = ask(handshake, Option.SET_META_CONTEXT, context_query(b"vol1", b"no colon"))
    assert kinds(failed) == [OptionReply.ERR_INVALID]
    assert entered(ask(handshake, Option.GO, export_query(b"vol1"))).agreement.contexts == {}


def test_starttls_without_tls_is_refused_by_policy() -> None:
    assert kinds(ask(begin(), Option.STARTTLS)) == [OptionReply.ERR_POLICY]


@pytest.mark.parametrize("option", [Option.LIST, Option.INFO, Option.GO, Option.STRUCTURED_REPLY, 99])
def test_required_tls_comes_before_anything_else(option: int) -> None:
    handshake = begin(tls=TlsPolicy.REQUIRED)
    assert kinds(ask(handshake, option, b"")) == [OptionReply.ERR_TLS_REQD]


def test_required_tls_leaves_export_name_no_answer() -> None:
    (event,) = ask(begin(tls=TlsPolicy.REQUIRED), Option.EXPORT_NAME, b"vol1")
    assert isinstance(event, Ended)


def test_starttls_starts_negotiation_afresh() -> None:
    """Nothing of before could have been negotiated; were it, by whatever way, it would be forgotten."""
    handshake = begin(tls=TlsPolicy.REQUIRED)
    handshake._has_structured_replies = True
    handshake._contexts, handshake._contexts_of = {1: "base:allocation"}, "vol1"
    events = ask(handshake, Option.STARTTLS)
    assert kinds(events) == [OptionReply.ACK]
    assert events[-1] == SecureNow()
    handshake.secured()
    assert kinds(ask(handshake, Option.STARTTLS)) == [OptionReply.ERR_INVALID]
    agreement = entered(ask(handshake, Option.GO, export_query(b"vol1"))).agreement
    assert not agreement.has_structured_replies
    assert agreement.contexts == {}


def test_starttls_with_data_is_refused_and_may_be_asked_for_again() -> None:
    handshake = begin(tls=TlsPolicy.REQUIRED)
    assert kinds(ask(handshake, Option.STARTTLS, b"x")) == [OptionReply.ERR_INVALID]
    assert ask(handshake, Option.STARTTLS)[-1] == SecureNow()


@pytest.mark.parametrize(
    "injected",
    [
        b"x",
        options.pack_option(Option.GO, export_query(b"vol1")),
        options.pack_option(Option.STARTTLS),
        b"\x16\x03\x01",
    ],
)
def test_whatever_comes_along_behind_starttls_ends_the_session(injected: bytes) -> None:
    """Whoever is in between could have put it there, to be taken for what the client says under TLS."""
    handshake = begin(tls=TlsPolicy.REQUIRED)
    (event,) = handshake.receive(options.pack_option(Option.STARTTLS) + injected)
    assert isinstance(event, Ended)
    assert event.error is not None
    assert handshake.state is State.ENDED


def test_nothing_is_taken_between_starttls_and_tls() -> None:
    handshake = begin(tls=TlsPolicy.REQUIRED)
    ask(handshake, Option.STARTTLS)
    with pytest.raises(FatalPeerError):
        handshake.receive(options.pack_option(Option.LIST))


def test_before_tls_nothing_is_asked_of_the_catalogue() -> None:
    def catalogue() -> tuple[ExportDescription, ...]:
        raise AssertionError

    handshake = ServerHandshake(catalogue, TlsPolicy.REQUIRED)
    handshake.receive(BOTH)
    for option, payload in PAYLOADS.items():
        if option != Option.EXPORT_NAME:
            assert kinds(ask(handshake, option, payload)) == [OptionReply.ERR_TLS_REQD]
    assert kinds(ask(handshake, Option.LIST)) == [OptionReply.ERR_TLS_REQD]


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        (Option.GO, OptionReply.ERR_TLS_REQD),
        (Option.STARTTLS, OptionReply.ERR_TOO_BIG),
        (99, OptionReply.ERR_TLS_REQD),
    ],
)
def test_required_tls_comes_before_the_length_of_an_option(option: int, kind: OptionReply) -> None:
    handshake = begin(tls=TlsPolicy.REQUIRED)
    header = struct.pack(">8sII", b"IHAVEOPT", option, MAX_OPTION_BYTES + 1)
    assert kinds(handshake.receive(header)) == [kind]


def test_client_without_fixed_newstyle_is_given_no_tls() -> None:
    """The server "MUST operate in NOTLS mode" then: where TLS is demanded, there is nothing that it could be given."""
    (event,) = ask(begin(tls=TlsPolicy.REQUIRED, client_flags=bytes(4)), Option.STARTTLS)
    assert isinstance(event, Ended)
    (event,) = ask(begin(tls=TlsPolicy.REQUIRED, client_flags=bytes(4)), Option.EXPORT_NAME, b"vol1")
    assert isinstance(event, Ended)


def test_shutdown_refuses_everything_but_abort() -> None:
    handshake = begin()
    handshake.begin_shutdown()
    assert kinds(ask(handshake, Option.GO, export_query(b"vol1"))) == [OptionReply.ERR_SHUTDOWN]
    assert kinds(ask(handshake, Option.LIST)) == [OptionReply.ERR_SHUTDOWN]
    assert kinds(ask(handshake, Option.ABORT)) == [OptionReply.ACK]


def test_export_that_is_closed_is_described_but_not_entered() -> None:
    closed = replace(VOL1, closed_because="it is full")
    handshake = begin(closed)
    assert kinds(ask(handshake, Option.INFO, export_query(b"vol1")))[-1] == OptionReply.ACK
    assert kinds(ask(handshake, Option.LIST))[-1] == OptionReply.ACK
    assert kinds(ask(handshake, Option.GO, export_query(b"vol1"))) == [OptionReply.ERR_POLICY]
    assert any(isinstance(event, Ended) for event in ask(begin(closed), Option.EXPORT_NAME, b"vol1"))


# What each option meets in each situation, with a payload in order: the type of its final reply, or how it ends.
ACK, ENTERS, DROPPED = OptionReply.ACK, "enters", "dropped"
UNSUP, POLICY, INVALID = OptionReply.ERR_UNSUP, OptionReply.ERR_POLICY, OptionReply.ERR_INVALID
TLS, SHUT = OptionReply.ERR_TLS_REQD, OptionReply.ERR_SHUTDOWN
SITUATIONS = ("plain", "old client", "closing", "TLS required", "TLS up")
MEETS: dict[int, tuple[object, ...]] = {
    Option.EXPORT_NAME: (ENTERS, ENTERS, DROPPED, DROPPED, ENTERS),
    Option.ABORT: (ACK, DROPPED, ACK, ACK, ACK),
    Option.LIST: (ACK, DROPPED, SHUT, TLS, ACK),
    4: (UNSUP, DROPPED, SHUT, TLS, UNSUP),
    Option.STARTTLS: (POLICY, DROPPED, SHUT, ACK, INVALID),
    Option.INFO: (ACK, DROPPED, SHUT, TLS, ACK),
    Option.GO: (ENTERS, DROPPED, SHUT, TLS, ENTERS),
    Option.STRUCTURED_REPLY: (ACK, DROPPED, SHUT, TLS, ACK),
    Option.LIST_META_CONTEXT: (INVALID, DROPPED, SHUT, TLS, INVALID),
    Option.SET_META_CONTEXT: (INVALID, DROPPED, SHUT, TLS, INVALID),
    11: (UNSUP, DROPPED, SHUT, TLS, UNSUP),
}
PAYLOADS: dict[int, bytes] = {
    Option.EXPORT_NAME: b"vol1",
    Option.INFO: export_query(b"vol1"),
    Option.GO: export_query(b"vol1"),
    Option.LIST_META_CONTEXT: context_query(b"vol1"),
    Option.SET_META_CONTEXT: context_query(b"vol1"),
}


def bring_about(situation: str) -> ServerHandshake:
    if situation == "old client":
        return begin(client_flags=bytes(4))
    handshake = begin(tls=TlsPolicy.REQUIRED if situation.startswith("TLS") else TlsPolicy.OFF)
    if situation == "closing":
        handshake.begin_shutdown()
    if situation == "TLS up":
        ask(handshake, Option.STARTTLS)
        handshake.secured()
    return handshake


@pytest.mark.parametrize("option", MEETS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_option_in_every_situation(option: int, situation: str) -> None:
    expected = MEETS[option][SITUATIONS.index(situation)]
    handshake = bring_about(situation)
    events = ask(handshake, option, PAYLOADS.get(option, b""))
    last = events[-1]
    if expected == ENTERS:
        assert isinstance(last, Entered)
    elif expected == DROPPED:
        assert isinstance(last, Ended)
        assert last.error is not None
        assert len(events) == 1
    else:
        assert kinds(events)[-1] == expected
        assert not any(isinstance(event, Entered) for event in events)


def test_every_option_has_its_row() -> None:
    assert set(MEETS) >= set(Option)
