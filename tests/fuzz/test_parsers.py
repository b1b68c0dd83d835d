"""Mutated sessions into the parsers alone: whatever comes, the cuts do not matter, and nothing but a peer's error comes out."""

import random

import pytest

from shared.nbd.exports import Agreement
from shared.nbd.server_handshake import TlsPolicy
from tests.fuzz.budget import seeds
from tests.fuzz.corpus import handshake, requests
from tests.fuzz.mutations import cut, mutated
from tests.property.test_nbd_streams import FLAGS, SIZE, negotiated, outcome

SHARE = 0.15  # each, of the time that is fuzzed


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
