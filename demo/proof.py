"""The proof: what the target and the source have to hold in the end, compared byte for byte without any help from Cutover.

The application never paused, so «equal until commit» is shown from its list. A write that was acknowledged before the
commit was asked for must be on the source as well as on the target; a write that was sent after the commit was done must not
be on the source; and outside the reserved file, which nobody wrote to, the two must be the same to the end.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.blocks import BLOCK_BYTES, PIECE_BYTES, sequence_in
from demo.listing import Listing
from demo.volume import DemoError, SourceVolume, checksums_of, run_tool

DIFFERENCES_TOLD = 5
COMMIT_ASKED, COMMIT_DONE = "commit-asked", "commit-done"  # marks in the application's list


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. No difference means that it holds."""

    claim: str
    checked: str
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the claim is true."""
        return not self.differences


def _finding(claim: str, checked: str, differences: list[str]) -> Finding:
    more = len(differences) - DIFFERENCES_TOLD
    told = differences[:DIFFERENCES_TOLD] + ([f"and {more} more"] if more > 0 else [])
    return Finding(claim, checked, tuple(told))


def prove_filesystem(target: Path) -> Finding:
    """The filesystem on the target is clean."""
    try:
        run_tool("e2fsck", "-fn", target)
    except DemoError as error:
        return _finding("the target's filesystem is clean", "e2fsck -fn", [str(error)])
    return _finding("the target's filesystem is clean", "e2fsck -fn", [])


def prove_files(source: SourceVolume, target: Path, scratch: Path) -> Finding:
    """Every file on the target has the checksum that it had when the source was made."""
    out = scratch / "target-files"
    out.mkdir()
    run_tool("debugfs", "-R", f"rdump / {out}", target)
    found = checksums_of(out)
    shutil.rmtree(out)
    differences = [
        f"{name}: {'missing' if name not in found else 'another checksum'}"
        for name, checksum in source.checksums.items()
        if found.get(name) != checksum
    ]
    differences += [f"{name}: appeared" for name in found if name not in source.checksums]
    return _finding("every file has the checksum it had", f"{len(source.checksums)} files", differences)


def prove_acknowledged(source: SourceVolume, target: Path, listing: Listing) -> Finding:
    """The target holds the last acknowledged write of every block, and blocks that were never written as they were."""
    differences = []
    for block, data in _reserved(source, target):
        expected = listing.acknowledged.get(block, 0)
        found = sequence_in(source.run, block, data)
        if found != expected:
            differences.append(f"block {block}: acknowledged write {expected}, found {found}")
    checked = f"{listing.writes} writes to {len(listing.acknowledged)} blocks"
    return _finding("every acknowledged write is on the target", checked, differences)


def prove_equal_until_commit(source: SourceVolume, listing: Listing) -> Finding:
    """The source holds every write that was acknowledged before the commit, and none that was sent after it."""
    asked, done = listing.marks[COMMIT_ASKED], listing.marks[COMMIT_DONE]
    differences = []
    for block, data in _reserved(source, source.path):
        least = asked.acknowledged.get(block, 0)
        found = sequence_in(source.run, block, data)
        if found is None or not least <= found < done.next_sequence:
            differences.append(
                f"block {block}: write {least} or a later one before {done.next_sequence}, found {found}"
            )
    checked = f"{sum(1 for _ in asked.acknowledged)} blocks written before the commit"
    return _finding("target and source were equal until commit", checked, differences)


def prove_rest_equal(source: SourceVolume, target: Path) -> Finding:
    """Outside the reserved file source and target are the same, byte for byte."""
    differences = []
    checked_bytes = 0
    for offset, length in _around(source):
        for place, one, other in _pieces(source.path, target, offset, length):
            checked_bytes += len(one)
            if one != other:
                differences.append(f"the {len(one)} bytes at {place}")
    claim = "outside the application's file source and target are equal"
    return _finding(claim, f"{checked_bytes >> 20} MiB", differences)


def prove_held(claim: str, device: Path, digests: list[str], size_bytes: int) -> Finding:
    """The first `size_bytes` of a device have these digests."""
    found = digests_of(device, size_bytes, lambda _: None)
    pairs = enumerate(zip(found, digests, strict=True))
    differences = [
        f"the {PIECE_BYTES} bytes at {piece * PIECE_BYTES}" for piece, (one, other) in pairs if one != other
    ]
    return _finding(claim, f"{size_bytes >> 20} MiB", differences)


def digests_of(device: Path, size_bytes: int, progress: Callable[[int], None]) -> list[str]:
    """The SHA-256 of each piece of the first `size_bytes`."""
    digests: list[str] = []
    with device.open("rb", buffering=0) as opened:
        while (place := len(digests) * PIECE_BYTES) < size_bytes:
            digests.append(
                hashlib.sha256(
                    _read(opened.fileno(), place, min(PIECE_BYTES, size_bytes - place))
                ).hexdigest()
            )
            progress(place)
    return digests


def device_bytes(device: Path) -> int:
    """The size of a file or block device."""
    with device.open("rb", buffering=0) as opened:
        return os.lseek(opened.fileno(), 0, os.SEEK_END)


def _reserved(source: SourceVolume, device: Path) -> Iterator[tuple[int, bytes]]:
    with device.open("rb", buffering=0) as opened:
        for block in source.reserved_blocks():
            yield block, _read(opened.fileno(), block * BLOCK_BYTES, BLOCK_BYTES)


def _around(source: SourceVolume) -> Iterator[tuple[int, int]]:
    """The stretches between the extents of the reserved file."""
    end = 0
    for offset, length in sorted(source.reserved):
        if offset > end:
            yield end, offset - end
        end = offset + length
    size_bytes = device_bytes(source.path)
    if size_bytes > end:
        yield end, size_bytes - end


def _pieces(one: Path, other: Path, offset: int, length: int) -> Iterator[tuple[int, bytes, bytes]]:
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        for place in range(offset, offset + length, PIECE_BYTES):
            count = min(PIECE_BYTES, offset + length - place)
            yield place, _read(first.fileno(), place, count), _read(second.fileno(), place, count)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise DemoError(f"Only {len(data)} of {length} bytes could be read at {offset}.")
    return data
