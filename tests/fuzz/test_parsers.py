"""Mutated sessions into the parsers alone: whatever comes, the cuts do not matter, and nothing but a peer's error comes out."""

import random
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from shared.nbd.exports import Agreement
from shared.nbd.server_handshake import Ended, Entered, SecureNow, Send, ServerHandshake, TlsPolicy
from tests.fuzz.budget import seeds
from tests.fuzz.corpus import CLIENT_FLAGS, OPTION_ABORT, OPTION_STARTTLS, handshake, option, requests
from tests.fuzz.mutations import cut, mutated
from tests.property.test_nbd_streams import EXPORTS, FLAGS, SIZE, negotiated, outcome

SHARE = 0.13  # each, of the time that is fuzzed
NAME = "payroll"  # of an export that nobody may hear of before TLS
ACKNOWLEDGED, REFUSED = 1, 1 << 31


@pytest.mark.timeout(0)
def test_requests_come_out_the_same_however_they_are_cut() -> None:
    for seed in seeds(SHARE):
        chance = random.Random(seed)
        stream = mutated(chance, requests(chance, SIZE * 2, chance.randrange(1, 12)))
        agreement = Agreement(
            name="v",
            size_bytes=SIZE,
            flags=FLAGS,
            enforced_block_bytes=chance.choice((1, 512)),
            contexts={1: "x"},
        )
        whole = outcome([stream], agreement)
        assert outcome(cut(chance, stream), agreement) == whole, f"FUZZ_SEED={seed}"


@pytest.mark.timeout(0)
def test_handshakes_come_out_the_same_however_they_are_cut() -> None:
    for seed in seeds(SHARE):
        chance = random.Random(seed)
        stream = mutated(chance, handshake(chance, "v"))
        whole = negotiated([stream], TlsPolicy.OFF)
        assert negotiated(cut(chance, stream), TlsPolicy.OFF) == whole, f"FUZZ_SEED={seed}"


@pytest.mark.timeout(0)
def test_before_tls_nothing_is_given_away_and_after_it_negotiation_begins_anew() -> None:
    """Whatever is said before it, or comes along with it: refusals, and no word of an export; and nothing of it counts later."""
    for seed in seeds(SHARE):
        chance = random.Random(seed)
        messages = handshake(chance, NAME)
        messages.insert(chance.randint(1, len(messages)), option(OPTION_STARTTLS))
        server = ServerHandshake(lambda: [replace(EXPORTS[0], name=NAME)], TlsPolicy.REQUIRED)
        told, is_secured = _told_before_tls(server, cut(chance, mutated(chance, messages)))
        assert NAME.encode() not in told, f"FUZZ_SEED={seed}"
        for answered, kind in _replies(told):
            assert kind >= REFUSED or (
                kind == ACKNOWLEDGED and answered in {OPTION_STARTTLS, OPTION_ABORT}
            ), f"FUZZ_SEED={seed}"
        if is_secured:
            server.secured()
            anew = mutated(chance, handshake(chance, NAME)[1:])
            fresh = ServerHandshake(lambda: [replace(EXPORTS[0], name=NAME)], TlsPolicy.REQUIRED)
            fresh.receive(CLIENT_FLAGS + option(OPTION_STARTTLS))
            fresh.secured()
            fresh._client_flags = server._client_flags  # which are all that is kept
            assert repr(server.receive(anew)) == repr(fresh.receive(anew)), f"FUZZ_SEED={seed}"


def _told_before_tls(server: ServerHandshake, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Everything that is sent until TLS, and whether it comes to that."""
    told = b""
    for piece in pieces:
        for event in server.receive(piece):
            match event:
                case Send(data):
                    told += data
                case SecureNow():
                    return told, True
                case Ended():
                    return told, False
                case Entered():
                    raise AssertionError("served without TLS")
    return told, False


def _replies(told: bytes) -> Iterator[tuple[int, int]]:
    """Option and kind of each."""
    while told:
        magic, answered, kind, length = struct.unpack_from(">QIII", told)
        assert magic == 0x3E889045565A9
        yield answered, kind
        told = told[20 + length :]
