"""What a server says of an export, and what both sides have agreed on when the handshake is over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.nbd.constants import (
    DEFAULT_PREFERRED_BLOCK_BYTES,
    LARGEST_MINIMUM_BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_STRING_BYTES,
    TransmissionFlag,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSizes:
    """The "Size constraints" of an export, in bytes."""

    minimum: int = 1
    preferred: int = DEFAULT_PREFERRED_BLOCK_BYTES
    maximum: int = MAX_PAYLOAD_BYTES

    def __post_init__(self) -> None:
        if not _is_power_of_two(self.minimum) or self.minimum > LARGEST_MINIMUM_BLOCK_BYTES:
            raise ValueError(f"a minimum block of {self.minimum} bytes: not a power of two up to 64 KiB")
        if not _is_power_of_two(self.preferred) or self.preferred < max(self.minimum, 512):
            raise ValueError(
                f"a preferred block of {self.preferred} bytes: not a power of two that is large enough"
            )
        if self.maximum < self.preferred:
            raise ValueError(f"a maximum payload of {self.maximum} bytes is less than the preferred block")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportDescription:
    """One export, as a handshake tells it. `flags` without SEND_DF, which depends on the connection."""

    name: str
    size_bytes: int
    flags: TransmissionFlag
    description: str = ""
    blocks: BlockSizes = field(default_factory=BlockSizes)
    contexts: tuple[str, ...] = ()
    closed_because: str = ""  # if not empty: nobody may begin to use it now, and this says why

    def __post_init__(self) -> None:
        for text in (self.name, self.description, *self.contexts):
            if "\0" in text or len(text.encode()) > MAX_STRING_BYTES:
                raise ValueError(f"not a string that NBD can carry: {text[:80]!r}")


Catalogue = Callable[[], Sequence[ExportDescription]]
"""What is offered at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a finished handshake settled for the transmission phase.

    `flags` are those that the server sent. `enforced_block_bytes` is the minimum block if the client promised to keep
    to it, else 1. `contexts` maps metadata context ids to names.
    """

    name: str
    size_bytes: int
    flags: TransmissionFlag
    has_structured_replies: bool = False
    enforced_block_bytes: int = 1
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    contexts: Mapping[int, str] = field(default_factory=dict)


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
