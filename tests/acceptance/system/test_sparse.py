"""Holes: a sparse source stays sparse on the target, and a target that is full of something reads as the source afterwards."""

import os
from pathlib import Path

import pytest

from tests.acceptance.system.devices import MIB, digest, empty_file, full_file, loop_device
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import System

SIZE_BYTES = 32 * MIB
DATA = ((0, MIB // 2), (5 * MIB + 4096, 8192), (20 * MIB, 2 * MIB))  # all the rest is holes
DATA_BYTES = sum(length for _, length in DATA)


def sparse_source(path: Path) -> Path:
    empty_file(path, SIZE_BYTES)
    with path.open("r+b") as file:
        for offset, length in DATA:
            file.seek(offset)
            file.write(os.urandom(length))
        os.fsync(file.fileno())
    return path


def allocated(path: Path) -> int:
    """Bytes that a file has on disk, once they are there."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return path.stat().st_blocks * 512


def migrate(system: System, source: Path, target: Path) -> None:
    system.set_up("vol1", source, target)
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    system.clean_up("vol1")


def test_sparse_source_stays_sparse_on_an_empty_target(system: System, pair: Pair) -> None:
    source = sparse_source(pair.source.parent / "sparse.img")
    target = empty_file(pair.source.parent / "empty.img", SIZE_BYTES)
    migrate(system, source, target)
    assert digest(source) == digest(target)
    assert allocated(target) <= allocated(source) + 64 * 1024


def test_target_full_of_old_data_reads_as_the_source_and_its_holes_are_given_back(
    system: System, pair: Pair
) -> None:
    source = sparse_source(pair.source.parent / "sparse.img")
    target = full_file(pair.source.parent / "full.img", SIZE_BYTES, seed=5)
    assert allocated(target) >= SIZE_BYTES
    migrate(system, source, target)
    assert digest(source) == digest(target)
    assert allocated(target) <= allocated(source) + 64 * 1024


def test_target_longer_than_the_source_keeps_what_is_beyond(system: System, pair: Pair) -> None:
    source = sparse_source(pair.source.parent / "sparse.img")
    target = full_file(pair.source.parent / "full.img", SIZE_BYTES + MIB, seed=5)
    with target.open("rb") as file:
        file.seek(SIZE_BYTES)
        beyond = file.read()
    migrate(system, source, target)
    content = target.read_bytes()
    assert content[:SIZE_BYTES] == source.read_bytes()
    assert content[SIZE_BYTES:] == beyond


@pytest.mark.needs_root
def test_block_device_full_of_old_data_reads_as_the_sparse_source(system: System, pair: Pair) -> None:
    source = sparse_source(pair.source.parent / "sparse.img")
    backing = full_file(pair.source.parent / "full.img", SIZE_BYTES, seed=6)
    with loop_device(backing) as target:
        migrate(system, source, target)
        assert digest(source) == digest(target)


def test_source_whose_size_is_no_multiple_of_a_region_is_copied_to_its_end(
    system: System, pair: Pair
) -> None:
    size_bytes = 3 * MIB + 512 * 7
    source = full_file(pair.source.parent / "odd.img", size_bytes, seed=8)
    target = empty_file(pair.source.parent / "odd-target.img", size_bytes)
    migrate(system, source, target)
    assert digest(source) == digest(target)
