"""The demonstration's proof: it holds for a good migration, and says what differs for every way of losing something."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.blocks import BLOCK_BYTES, block_bytes, sequence_in
from demo.listing import Listing, read_listing
from demo.proof import (
    Finding,
    digests_of,
    prove_acknowledged,
    prove_equal_until_commit,
    prove_files,
    prove_filesystem,
    prove_held,
    prove_rest_equal,
)
from demo.volume import DemoError, SourceVolume, checksums_of, extents_of

RUN = 42
BLOCKS = 8
FIRST_BLOCK = 4
DEVICE_BLOCKS = 16
LIST = [
    "w 4 1",
    "w 5 2",
    "f",
    "w 4 3",
    "m commit-asked 6",
    "w 6 5",
    "w 5 6",
    "m commit-done 8",
    "w 4 8",
    "w 7 9",
]


def write(device: Path, block: int, data: bytes) -> None:
    with device.open("r+b") as opened:
        opened.seek(block * BLOCK_BYTES)
        opened.write(data)


@dataclass
class Migrated:
    """A source and a target after a migration in which nothing went wrong."""

    source: SourceVolume
    target: Path
    listing: Listing

    def source_holds(self, block: int, sequence: int) -> None:
        write(self.source.path, block, block_bytes(RUN, block, sequence))

    def target_holds(self, block: int, sequence: int) -> None:
        write(self.target, block, block_bytes(RUN, block, sequence))

    def acknowledged(self) -> Finding:
        return prove_acknowledged(self.source, self.target, self.listing)

    def equal_until_commit(self) -> Finding:
        return prove_equal_until_commit(self.source, self.listing)

    def rest(self) -> Finding:
        return prove_rest_equal(self.source, self.target)


@pytest.fixture
def migrated(tmp_path: Path) -> Migrated:
    source, target = tmp_path / "source", tmp_path / "target"
    for device in (source, target):
        device.write_bytes(b"rest" * (DEVICE_BLOCKS * BLOCK_BYTES // 4))
        for block in range(FIRST_BLOCK, FIRST_BLOCK + BLOCKS):
            write(device, block, block_bytes(RUN, block, 0))
    volume = SourceVolume(source, RUN, ((FIRST_BLOCK * BLOCK_BYTES, BLOCKS * BLOCK_BYTES),), {})
    made = Migrated(volume, target, read_listing(LIST))
    for block, sequence in (
        (4, 3),
        (5, 2),
        (6, 5),
    ):  # write 6 came while the commit was decided, and missed the source
        made.source_holds(block, sequence)
    for block, sequence in ((4, 8), (5, 6), (6, 5), (7, 9)):
        made.target_holds(block, sequence)
    return made


def test_a_good_migration_is_proved(migrated: Migrated) -> None:
    for finding in (migrated.acknowledged(), migrated.equal_until_commit(), migrated.rest()):
        assert finding.holds, finding


def test_the_list_is_read_in_the_order_of_the_acknowledgements() -> None:
    listing = read_listing(LIST)
    assert listing.acknowledged == {4: 8, 5: 6, 6: 5, 7: 9}
    assert listing.marks["commit-asked"].acknowledged == {4: 3, 5: 2}
    assert (listing.writes, listing.flushes) == (7, 1)


def test_an_unknown_line_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown line"):
        read_listing(["x 1 2"])


@pytest.mark.parametrize(
    ("spoil", "claim"),
    [
        pytest.param(lambda m: m.target_holds(4, 3), "acknowledged", id="lost write"),
        pytest.param(lambda m: m.target_holds(8, 1), "acknowledged", id="write that never was"),
        pytest.param(lambda m: write(m.target, 7, b"\0" * 4096), "acknowledged", id="zeroed"),
        pytest.param(lambda m: write(m.target, 7, b"\xff" * 512), "acknowledged", id="torn"),
        pytest.param(lambda m: write(m.target, 7, block_bytes(RUN, 6, 9)), "acknowledged", id="misplaced"),
        pytest.param(
            lambda m: write(m.target, 7, block_bytes(RUN + 1, 7, 9)), "acknowledged", id="another run"
        ),
        pytest.param(lambda m: m.source_holds(4, 1), "equal_until_commit", id="source behind at commit"),
        pytest.param(lambda m: m.source_holds(4, 8), "equal_until_commit", id="source written after commit"),
        pytest.param(lambda m: write(m.target, 0, b"X"), "rest", id="changed before the reserved file"),
        pytest.param(lambda m: write(m.source.path, 15, b"X"), "rest", id="changed behind the reserved file"),
    ],
)
def test_every_loss_is_found(migrated: Migrated, spoil: Callable[[Migrated], None], claim: str) -> None:
    spoil(migrated)
    found = {name: getattr(migrated, name)().holds for name in ("acknowledged", "equal_until_commit", "rest")}
    assert found == {name: name != claim for name in found}


def test_differences_are_told_in_part_when_there_are_many(migrated: Migrated) -> None:
    migrated.target.write_bytes(b"\0" * DEVICE_BLOCKS * BLOCK_BYTES)
    finding = migrated.acknowledged()
    assert len(finding.differences) == 6
    assert finding.differences[-1] == "and 3 more"


def test_a_short_device_is_an_error_and_no_proof(migrated: Migrated) -> None:
    migrated.target.write_bytes(b"")
    with pytest.raises(DemoError):
        migrated.acknowledged()


def test_a_block_names_itself() -> None:
    assert sequence_in(RUN, 7, block_bytes(RUN, 7, 9)) == 9
    assert sequence_in(RUN, 8, block_bytes(RUN, 7, 9)) is None
    assert len(block_bytes(RUN, 7, 9)) == BLOCK_BYTES


def test_digests_of_a_device_that_is_no_whole_number_of_pieces(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(b"a" * (1 << 20) + b"b" * 512)
    digests = digests_of(device, (1 << 20) + 512, lambda _: None)
    assert prove_held("", device, digests, (1 << 20) + 512).holds
    larger = tmp_path / "larger"
    larger.write_bytes(device.read_bytes() + b"c" * 4096)
    assert prove_held("", larger, digests, (1 << 20) + 512).holds
    write(device, 0, b"x")
    assert not prove_held("", device, digests, (1 << 20) + 512).holds


@pytest.fixture
def filesystem(tmp_path: Path) -> tuple[SourceVolume, Path]:
    """An ext4 image with three files, and a copy of it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_text(name * 5000)
    (tree / "reserved.bin").write_bytes(b"\xff" * 8 * BLOCK_BYTES)
    image, copy = tmp_path / "image", tmp_path / "copy"
    with image.open("wb") as opened:
        opened.truncate(8 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tree, image], check=True)
    copy.write_bytes(image.read_bytes())
    return SourceVolume(image, RUN, extents_of(image, "/reserved.bin"), checksums_of(tree)), copy


def test_extents_hold_what_the_file_holds(filesystem: tuple[SourceVolume, Path]) -> None:
    source, _ = filesystem
    assert sum(length for _, length in source.reserved) == 8 * BLOCK_BYTES
    with source.path.open("rb") as image:
        for offset, length in source.reserved:
            image.seek(offset)
            assert image.read(length) == b"\xff" * length


def test_a_clean_copy_is_proved(filesystem: tuple[SourceVolume, Path], tmp_path: Path) -> None:
    source, copy = filesystem
    assert prove_filesystem(copy).holds
    assert prove_files(source, copy, tmp_path).holds


def test_a_changed_file_is_found(filesystem: tuple[SourceVolume, Path], tmp_path: Path) -> None:
    source, copy = filesystem
    data = bytearray(copy.read_bytes())
    at = data.index(b"aaaa" * 100)
    data[at] = ord("x")
    copy.write_bytes(data)
    finding = prove_files(source, copy, tmp_path)
    assert finding.differences == ("a: another checksum",)


def test_a_broken_filesystem_is_found(filesystem: tuple[SourceVolume, Path]) -> None:
    _, copy = filesystem
    with copy.open("r+b") as opened:
        opened.seek(BLOCK_BYTES)  # the group descriptors
        opened.write(b"\xa5" * BLOCK_BYTES)
    assert not prove_filesystem(copy).holds
