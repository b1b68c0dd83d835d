"""The region map as bytes: a header that says whose map it is, and a bit for each region, «the sides may differ here».

Pure: it encodes, decodes and judges, and knows neither files nor volumes. A map is believed whole or not at all. What is
torn, damaged, or of anything else than what is expected is refused with the reason, and then every region may differ.

A file is `HEADER_BYTES` of header, then pages of `PAGE_BYTES`. Each page carries a digest over its bits, its place and
the map's name, so that a page of another map, or from another place, is as foreign as a damaged one.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from shared.messages.codec import decode, encode
from shared.migration.devices import DeviceIdentity
from shared.migration.refusals import Refusal

VERSION = 1
MAGIC = b"CUTOVMAP"
HEADER_BYTES = 16384
PAGE_BYTES = 4096

_HEAD = struct.Struct("<8sI32s")  # magic, length of what follows, its SHA-256
_DIGEST_BYTES = 16
_PAYLOAD_BYTES = PAGE_BYTES - _DIGEST_BYTES
REGIONS_PER_PAGE = _PAYLOAD_BYTES * 8


class UntrustedMapError(Exception):
    """A map that is not believed; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Whose map it is. The witness names the one map that it trusts by `map_id`."""

    version: int = VERSION
    map_id: str
    uuid: str
    run: int  # of the host, that began it
    attempt: int
    flag_digest: str  # the flag-set record that writes were last cloned under
    size_bytes: int
    region_size_bytes: int
    source: str  # what tells the device from every other, as `identity_text` has it
    target: str

    @property
    def region_count(self) -> int:
        """How many regions the volume has."""
        return -(-self.size_bytes // self.region_size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a map must say of itself to be believed: what the witness says. Of several, one."""

    map_id: str
    uuid: str
    attempts: frozenset[int]
    flag_digests: frozenset[str] | None  # None: not known
    size_bytes: int
    region_size_bytes: int
    source: str
    target: str


def identity_text(device: DeviceIdentity) -> str:
    """What `DeviceIdentity.is_same_device` compares, in one text."""
    return f"{device.kind} {device.token} {device.size_bytes}"


def empty_bits(region_count: int) -> bytearray:
    """Room for a bit for each region, none set."""
    return bytearray(-(-region_count // 8))


def full_bits(region_count: int) -> bytearray:
    """A bit for each region, all set."""
    bits = bytearray(b"\xff") * (-(-region_count // 8))
    if region_count % 8:
        bits[-1] = (1 << region_count % 8) - 1
    return bits


def regions_set(bits: bytes | bytearray) -> Iterable[int]:
    """The regions whose bit is set, in order."""
    for at, byte in enumerate(bits):
        if byte:
            for bit in range(8):
                if byte >> bit & 1:
                    yield at * 8 + bit


# ------------------------------------------------------------------ writing


def encode_header(header: Header) -> bytes:
    """The header's part of the file, padded.

    Raises:
        UntrustedMapError: it does not fit.
    """
    text = encode(header)
    head = _HEAD.pack(MAGIC, len(text), hashlib.sha256(text).digest()) + text
    if len(head) > HEADER_BYTES:
        raise UntrustedMapError(f"its header needs {len(head)} bytes, {HEADER_BYTES} is the most")
    return head.ljust(HEADER_BYTES, b"\0")


def encode_page(map_id: str, page: int, bits: bytes | bytearray) -> tuple[int, bytes]:
    """One page of the file, out of all bits: where it stands, and its bytes."""
    payload = bytes(bits[page * _PAYLOAD_BYTES : (page + 1) * _PAYLOAD_BYTES]).ljust(_PAYLOAD_BYTES, b"\0")
    return HEADER_BYTES + page * PAGE_BYTES, _digest(map_id, page, payload) + payload


def encode_map(header: Header, bits: bytes | bytearray) -> bytes:
    """The whole file.

    Raises:
        UntrustedMapError: the header does not fit.
    """
    pages = (encode_page(header.map_id, page, bits)[1] for page in range(page_count(header.region_count)))
    return encode_header(header) + b"".join(pages)


def page_count(region_count: int) -> int:
    """How many pages hold so many bits."""
    return -(-region_count // REGIONS_PER_PAGE)


def _digest(map_id: str, page: int, payload: bytes) -> bytes:
    salted = f"{map_id} {page} ".encode()
    return hashlib.blake2b(salted + payload, digest_size=_DIGEST_BYTES).digest()


# ------------------------------------------------------------------ believing


def trusted_bits(content: bytes, expected: Expected) -> bytearray:
    """The bits of a file, if it is the map that is expected, and whole.

    Raises:
        UntrustedMapError: it is not, and why.
    """
    header = _decode_header(content)
    _refuse_other(header, expected)
    pages = page_count(header.region_count)
    if len(content) != HEADER_BYTES + pages * PAGE_BYTES:
        raise UntrustedMapError(f"it has {len(content)} bytes, and should have others")
    bits = bytearray()
    for page in range(pages):
        at = HEADER_BYTES + page * PAGE_BYTES
        payload = content[at + _DIGEST_BYTES : at + PAGE_BYTES]
        if _digest(header.map_id, page, payload) != content[at : at + _DIGEST_BYTES]:
            raise UntrustedMapError(f"page {page} is torn or damaged")
        bits += payload
    return bits[: -(-header.region_count // 8)]


def _decode_header(content: bytes) -> Header:
    if len(content) < HEADER_BYTES:
        raise UntrustedMapError("it is cut short")
    magic, length, digest = _HEAD.unpack_from(content)
    text = content[_HEAD.size : _HEAD.size + length]
    if magic != MAGIC:
        raise UntrustedMapError("it is no region map")
    if _HEAD.size + length > HEADER_BYTES or hashlib.sha256(text).digest() != digest:
        raise UntrustedMapError("its header is torn or damaged")
    try:
        header = decode(Header, text)
    except Refusal as refusal:
        raise UntrustedMapError(f"its header cannot be read: {refusal.message}") from refusal
    if header.version != VERSION:
        raise UntrustedMapError(f"it is of version {header.version}, this program reads {VERSION}")
    return header


def _refuse_other(header: Header, expected: Expected) -> None:
    """Refuse the map of anything else.

    Raises:
        UntrustedMapError: in what it differs.
    """
    differences = (
        ("of another migration", header.uuid != expected.uuid),
        ("not the one that the witness trusts", header.map_id != expected.map_id),
        (f"of attempt {header.attempt}", header.attempt not in expected.attempts),
        (
            "of another error flag",
            expected.flag_digests is not None and header.flag_digest not in expected.flag_digests,
        ),
        (f"of a volume of {header.size_bytes} bytes", header.size_bytes != expected.size_bytes),
        (
            f"of regions of {header.region_size_bytes} bytes",
            header.region_size_bytes != expected.region_size_bytes,
        ),
        ("of another source", header.source != expected.source),
        ("of another target", header.target != expected.target),
    )
    for words, is_different in differences:
        if is_different:
            raise UntrustedMapError(f"it is {words}")
