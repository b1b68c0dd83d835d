"""A client's requests out of its byte stream ("Request message", "Request types"). Hot: runs for every request.

The parser looks at the receive buffer in place and copies nothing: a request says where its payload begins. What it
asks of the caller is to keep `needed_bytes` of room for the request that is not complete yet, and to take payloads of
more than `inline_limit` bytes off the stream itself, because those deserve a buffer of their own.

It must not know who serves the requests, nor how they are answered.
"""

import struct
from typing import NamedTuple

from shared.nbd.constants import (
    REQUEST_BYTES,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
    NbdError,
    TransmissionFlag,
)
from shared.nbd.errors import FatalPeerError
from shared.nbd.exports import Agreement

_HEADER = struct.Struct(">QQQI")
"""Magic, flags and command as one word, then cookie, offset, length: the word is looked up as it is."""

_WRITES = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})

VERDICTS_AT_ONCE = 64
"""After so many verdicts parsing pauses, so that a flood of refused requests costs no more than its answers may."""

WireRequest = tuple[int, int, int, int, int, int]
"""Command, flags, cookie, offset, length, and where a write's payload begins in the buffer. A plain tuple, which costs
less than a named one."""


class Verdict(NamedTuple):
    """A request that is answered without anyone doing anything: `error` is an `NbdError`, or 0 for an empty request."""

    command: int
    cookie: int
    error: int
    sentence: str


class RequestParser:
    """Splits the stream of one connection. Its outcome does not depend on how the stream was cut into pieces.

    After `parse`: `verdicts` are to be answered and cleared by the caller; `pending` is a write whose payload the
    caller takes off the stream (set it to None when that is done); `is_finished` says that the client is done, and
    `violation` that it must be dropped. In these last three cases nothing more is parsed. `has_more` says that parsing
    paused because of many verdicts: call it again for the rest when these are answered.
    """

    __slots__ = (
        "_careful_mask",
        "_flush_words",
        "_inline_limit",
        "_max_payload",
        "_read_only_words",
        "_refused_write",
        "_rules",
        "_size",
        "_skip_bytes",
        "_supports_df",
        "has_more",
        "is_finished",
        "needed_bytes",
        "pending",
        "verdicts",
        "violation",
    )

    def __init__(self, agreement: Agreement, inline_limit: int) -> None:
        self._size = agreement.size_bytes
        self._max_payload = agreement.max_payload_bytes
        self._careful_mask = agreement.enforced_block_bytes - 1
        self._supports_df = agreement.has_structured_replies
        self._inline_limit = inline_limit
        self._rules, self._flush_words, self._read_only_words = _rules_for(agreement)
        self._skip_bytes = 0  # of a refused write's payload
        self._refused_write: Verdict | None = None
        self.needed_bytes = REQUEST_BYTES
        self.verdicts: list[Verdict] = []
        self.pending: WireRequest | None = None
        self.has_more = False
        self.is_finished = False
        self.violation: FatalPeerError | None = None

    def parse(
        self, data: bytes | bytearray | memoryview, start: int, end: int
    ) -> tuple[list[WireRequest], int]:
        """Take the complete requests out of `data[start:end]`: them, and where the first incomplete one begins."""
        found: list[WireRequest] = []
        self.has_more = False
        if self._skip_bytes:
            start += self._skip(end - start)
        unpack = _HEADER.unpack_from
        rule_for = self._rules.get
        size, mask, limit, inline_limit = (
            self._size,
            self._careful_mask,
            self._max_payload,
            self._inline_limit,
        )
        self.needed_bytes = REQUEST_BYTES
        header_bytes = REQUEST_BYTES
        while end - start >= header_bytes:
            word, cookie, offset, length = unpack(data, start)
            rule = rule_for(word)
            payload = start + header_bytes
            if rule is None or not 0 < length <= limit or offset + length > size or (offset | length) & mask:
                request = self._judge(word, cookie, offset, length)
                start = payload
                if request is not None:
                    found.append(request)
                    continue
                start += self._skip(end - start)
                if self._is_to_stop():
                    break
                continue
            command, flags, has_payload = rule
            if not has_payload:
                found.append((command, flags, cookie, offset, length, 0))
                start = payload
            elif length > inline_limit:
                self.pending = (command, flags, cookie, offset, length, payload)
                start = payload
                break
            elif payload + length <= end:
                found.append((command, flags, cookie, offset, length, payload))
                start = payload + length
            else:
                self.needed_bytes = REQUEST_BYTES + length
                break
        return found, start

    def _skip(self, available: int) -> int:
        """Skip a refused write's payload; how much of it came.

        The verdict waits until all of it has: a client may not look for a reply to what it is still sending (libnbd then
        takes it for a reply to nothing, and gives the connection up).
        """
        skipped = min(self._skip_bytes, available)
        self._skip_bytes -= skipped
        if not self._skip_bytes and self._refused_write is not None:
            self.verdicts.append(self._refused_write)
            self._refused_write = None
        return skipped

    # ---------------------------------------------------------------------------------- everything out of the ordinary

    def _judge(self, word: int, cookie: int, offset: int, length: int) -> WireRequest | None:
        """Judge a request that is not plainly in order: it, or None when a verdict or the stream's end was noted."""
        magic, flags, command = word >> 32, word >> 16 & 0xFFFF, word & 0xFFFF
        if magic != REQUEST_MAGIC:
            self.violation = FatalPeerError(f"a request with magic {magic:#010x}")
            return None
        if command == Command.DISC:
            self.is_finished = True
            return None
        error, sentence = self._find_fault(word, offset, length)
        if error is None and (length or command == Command.FLUSH):
            return (command, flags, cookie, offset, length, 0)
        verdict = Verdict(command, cookie, error or 0, sentence)
        if command == Command.WRITE and length:
            self._skip_bytes = length
            self._refused_write = verdict
        else:
            self.verdicts.append(verdict)
        return None

    def _is_to_stop(self) -> bool:
        """Whether nothing more is parsed, for good or for now."""
        if self.is_finished or self.violation is not None:
            return True
        self.has_more = len(self.verdicts) >= VERDICTS_AT_ONCE
        return self.has_more

    def _find_fault(self, word: int, offset: int, length: int) -> tuple[NbdError | None, str]:
        """What is wrong with a request, in the order in which "Error values" makes sense of it."""
        flags, command = word >> 16 & 0xFFFF, word & 0xFFFF
        if word in self._read_only_words:
            return NbdError.EPERM, "the export is read-only"
        if word not in self._rules and word not in self._flush_words:
            return NbdError.EINVAL, f"command {command} with flags {flags:#x} is unknown or was not offered"
        if command == Command.FLUSH:
            wrong = offset or length
            return (NbdError.EINVAL, "a flush with an offset or a length") if wrong else (None, "")
        if offset + length > self._size:
            error = NbdError.ENOSPC if command in {Command.WRITE, Command.WRITE_ZEROES} else NbdError.EINVAL
            return error, f"bytes {offset} to {offset + length} of an export of {self._size}"
        if (offset | length) & self._careful_mask:
            return NbdError.EINVAL, f"not aligned to the minimum block of {self._careful_mask + 1} bytes"
        return self._find_length_fault(command, length)

    def _find_length_fault(self, command: int, length: int) -> tuple[NbdError | None, str]:
        if command == Command.BLOCK_STATUS and not length:
            return NbdError.EINVAL, "the status of no bytes"
        if command in {Command.READ, Command.WRITE} and length > self._max_payload:
            # EOVERFLOW is for structured reads alone ("Structured replies", `NBD_CMD_READ`).
            is_overflow = command == Command.READ and self._supports_df
            error = NbdError.EOVERFLOW if is_overflow else NbdError.EINVAL
            return error, f"a payload of {length} bytes, where {self._max_payload} are allowed"
        return None, ""


_Rule = tuple[int, int, bool]


def _rules_for(agreement: Agreement) -> tuple[dict[int, _Rule], frozenset[int], frozenset[int]]:
    """Every word that a client may send under this agreement, with command, flags, and whether a payload follows.

    Kept apart are flushes, whose length must be 0, and what only a read-only export refuses, so that it is refused for
    what it is.
    """
    is_read_only = TransmissionFlag.READ_ONLY in agreement.flags
    rules: dict[int, _Rule] = {}
    flush_words: set[int] = set()
    read_only_words: set[int] = set()
    for command, allowed in _allowed_flags(agreement).items():
        for flags in _subsets(allowed):
            word = REQUEST_MAGIC << 32 | flags << 16 | command
            if command is Command.FLUSH:
                flush_words.add(word)
            elif is_read_only and command in _WRITES:
                read_only_words.add(word)
            else:
                rules[word] = (int(command), flags, command is Command.WRITE)
    return rules, frozenset(flush_words), frozenset(read_only_words)


def _allowed_flags(agreement: Agreement) -> dict[Command, CommandFlag]:
    """The commands that were offered, each with the flags that "Command flags" allows it."""
    offered = agreement.flags
    fua = CommandFlag.FUA if TransmissionFlag.SEND_FUA in offered else CommandFlag(0)
    df = CommandFlag.DF if TransmissionFlag.SEND_DF in offered else CommandFlag(0)
    fast = CommandFlag.FAST_ZERO if TransmissionFlag.SEND_FAST_ZERO in offered else CommandFlag(0)
    allowed = {Command.READ: fua | df, Command.WRITE: fua}
    if TransmissionFlag.SEND_FLUSH in offered:
        allowed[Command.FLUSH] = fua
    if TransmissionFlag.SEND_TRIM in offered:
        allowed[Command.TRIM] = fua
    if TransmissionFlag.SEND_CACHE in offered:
        allowed[Command.CACHE] = fua
    if TransmissionFlag.SEND_WRITE_ZEROES in offered:
        allowed[Command.WRITE_ZEROES] = fua | CommandFlag.NO_HOLE | fast
    if agreement.contexts:
        allowed[Command.BLOCK_STATUS] = fua | CommandFlag.REQ_ONE
    return allowed


def _subsets(flags: CommandFlag) -> list[int]:
    mask = int(flags)
    return [subset for subset in range(mask + 1) if subset & ~mask == 0]


def pack_request(command: Command, flags: int, cookie: int, offset: int, length: int) -> bytes:
    """One request's header, as a client sends it."""
    return _HEADER.pack(REQUEST_MAGIC << 32 | flags << 16 | command, cookie, offset, length)
