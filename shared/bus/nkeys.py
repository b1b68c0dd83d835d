"""NATS's keys (nkeys): how an Ed25519 key is written down, and signing what the server asks to be signed.

The text of a key is base32 of a prefix that says of what kind it is, the 32 bytes, and a CRC (NATS ADR-14). Written
here because the package that does it comes as source only, and nothing is installed that was not built already. The
cryptography is the package `cryptography`'s.
"""

import base64
import binascii
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_BYTES = 32
_SEED = 18 << 3  # «S»
_USER = 20 << 3  # «U»
_CRC_BYTES = 2
_SEED_PREFIX = bytes((_SEED | (_USER >> 5), (_USER & 31) << 3))  # «SU»


class MalformedSeed(ValueError):
    """The text is no seed of a user's key. It is never in the message."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A user's key. What is secret stands in no text of it."""

    seed: str = field(repr=False)
    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        """What the server knows the user by."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _text(bytes((_USER,)) + raw)

    def sign(self, nonce: bytes) -> bytes:
        """The signature by which the server knows that the seed is known."""
        return self._private.sign(nonce)


def key_pair(seed: str) -> KeyPair:
    """The key of a seed.

    Raises:
        MalformedSeed: it is none of a user.
    """
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        raise MalformedSeed("it is not written in base32") from None
    content, crc = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if len(content) != len(_SEED_PREFIX) + KEY_BYTES:
        raise MalformedSeed("it has another length than a seed")
    if binascii.crc_hqx(content, 0) != int.from_bytes(crc, "little"):
        raise MalformedSeed("its check sum is wrong")
    if content[: len(_SEED_PREFIX)] != _SEED_PREFIX:
        raise MalformedSeed("it is no seed of a user's key, which begins with SU")
    return KeyPair(seed, Ed25519PrivateKey.from_private_bytes(content[len(_SEED_PREFIX) :]))


def new_key_pair(random: bytes) -> KeyPair:
    """A key made of 32 random bytes."""
    return key_pair(_text(_SEED_PREFIX + random))


def _text(content: bytes) -> str:
    crc = binascii.crc_hqx(content, 0).to_bytes(_CRC_BYTES, "little")
    return base64.b32encode(content + crc).decode().rstrip("=")
