"""A map is believed whole or not at all: what is torn, damaged, or of anything else is refused, and says in what."""

from dataclasses import replace

import pytest

from services.write_cloning.region_map import (
    HEADER_BYTES,
    PAGE_BYTES,
    REGIONS_PER_PAGE,
    Expected,
    Header,
    UntrustedMapError,
    empty_bits,
    encode_header,
    encode_map,
    encode_page,
    full_bits,
    identity_text,
    regions_set,
    trusted_bits,
)
from tests.support.records import DEVICES, UUID

REGION = 1 << 20
HEADER = Header(
    map_id="3-2",
    uuid=UUID,
    run=3,
    attempt=2,
    flag_digest="f",
    size_bytes=(REGIONS_PER_PAGE + 5) * REGION,
    region_size_bytes=REGION,
    source=identity_text(DEVICES.source),
    target=identity_text(DEVICES.target),
)
EXPECTED = Expected(
    map_id="3-2",
    uuid=UUID,
    attempts=frozenset({2}),
    flag_digests=frozenset({"f", "g"}),
    size_bytes=HEADER.size_bytes,
    region_size_bytes=REGION,
    source=HEADER.source,
    target=HEADER.target,
)
SET = [0, 7, 8, REGIONS_PER_PAGE - 1, REGIONS_PER_PAGE, REGIONS_PER_PAGE + 4]


def _bits() -> bytearray:
    bits = empty_bits(HEADER.region_count)
    for region in SET:
        bits[region >> 3] |= 1 << (region & 7)
    return bits


def test_bits_come_back() -> None:
    assert list(regions_set(trusted_bits(encode_map(HEADER, _bits()), EXPECTED))) == SET


def test_page_is_replaced_in_place() -> None:
    content, bits = bytearray(encode_map(HEADER, _bits())), _bits()
    bits[REGIONS_PER_PAGE >> 3] = 0
    offset, page = encode_page(HEADER.map_id, 1, bits)
    assert len(page) == PAGE_BYTES
    content[offset : offset + len(page)] = page
    assert list(regions_set(trusted_bits(bytes(content), EXPECTED))) == SET[:4]


@pytest.mark.parametrize("count", [1, 7, 8, 9, REGIONS_PER_PAGE, REGIONS_PER_PAGE + 1])
def test_full_map_has_every_region_and_no_other(count: int) -> None:
    header = replace(HEADER, size_bytes=count * REGION)
    expected = replace(EXPECTED, size_bytes=count * REGION)
    assert list(regions_set(trusted_bits(encode_map(header, full_bits(count)), expected))) == list(
        range(count)
    )


def test_any_flipped_bit_is_found() -> None:
    content = encode_map(HEADER, _bits())
    used = len(encode_header(HEADER).rstrip(b"\0"))
    at = [*range(used), *range(HEADER_BYTES, HEADER_BYTES + 64), *range(HEADER_BYTES + 64, len(content), 97)]
    for byte in at:
        damaged = bytearray(content)
        damaged[byte] ^= 1 << byte % 8
        with pytest.raises(UntrustedMapError):
            trusted_bits(bytes(damaged), EXPECTED)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + PAGE_BYTES, -1])
def test_file_that_is_cut_short_is_not_believed(length: int) -> None:
    with pytest.raises(UntrustedMapError):
        trusted_bits(encode_map(HEADER, _bits())[:length], EXPECTED)


def test_file_that_is_too_long_is_not_believed() -> None:
    with pytest.raises(UntrustedMapError, match="bytes"):
        trusted_bits(encode_map(HEADER, _bits()) + b"\0", EXPECTED)


def test_page_of_another_place_is_not_believed() -> None:
    content = encode_map(HEADER, _bits())
    first, second = content[HEADER_BYTES : HEADER_BYTES + PAGE_BYTES], content[HEADER_BYTES + PAGE_BYTES :]
    with pytest.raises(UntrustedMapError, match="page 0"):
        trusted_bits(content[:HEADER_BYTES] + second + first, EXPECTED)


def test_page_of_an_earlier_map_is_not_believed() -> None:
    older = encode_map(replace(HEADER, map_id="2-2"), empty_bits(HEADER.region_count))
    with pytest.raises(UntrustedMapError, match="page 0"):
        trusted_bits(encode_header(HEADER) + older[HEADER_BYTES:], EXPECTED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uuid": "other"}, "another migration"),
        ({"map_id": "2-2"}, "not the one that the witness trusts"),
        ({"attempt": 1}, "of attempt 1"),
        ({"flag_digest": "x"}, "another error flag"),
        ({"size_bytes": HEADER.size_bytes + REGION}, "of a volume of"),
        ({"region_size_bytes": REGION * 2}, "of regions of"),
        ({"source": "file inode:9:9 1"}, "another source"),
        ({"target": "file inode:9:9 1"}, "another target"),
        ({"version": 2}, "version 2"),
    ],
)
def test_map_of_anything_else_is_not_believed_and_says_of_what(change: dict[str, object], words: str) -> None:
    header = replace(HEADER, **change)  # type: ignore[arg-type]
    with pytest.raises(UntrustedMapError, match=words):
        trusted_bits(encode_map(header, full_bits(header.region_count)), EXPECTED)


def test_header_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(UntrustedMapError, match="header"):
        encode_header(replace(HEADER, source="x" * HEADER_BYTES))
