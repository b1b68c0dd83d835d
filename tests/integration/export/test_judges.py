"""What independent clients make of the export: libnbd, qemu, fio."""

import errno
import json
import os
from pathlib import Path

import pytest

from services.write_cloning.export.limits import STATUS_EXTENTS
from services.write_cloning.volume.requests import Kind
from tests.integration.export.harness import MIB, run, serving
from tests.integration.export.memory_volume import MemoryVolume

PYTHON_WITH_LIBNBD = "/usr/bin/python3"


async def test_nbdinfo_is_told_everything(short_path: Path) -> None:
    volumes = {
        "v": MemoryVolume(MIB, alignment_bytes=4096),
        "w": MemoryVolume(MIB + 512, alignment_bytes=4096),
    }
    async with serving(short_path, volumes) as running:
        told = json.loads(await run("nbdinfo", "--json", running.uri("v")))
        assert told["protocol"] == "newstyle-fixed"
        assert told["structured"]
        (export,) = told["exports"]
        assert export["export-size"] == MIB
        assert export["description"] == "volume v"
        assert export["contexts"] == ["base:allocation", "cutover:region"]
        for ability in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"):
            assert export[f"can_{ability}"], ability
        assert not export["is_read_only"]
        assert (export["block_size_minimum"], export["block_size_preferred"]) == (4096, 4096)
        assert export["block_size_maximum"] == 32 * MIB
        listed = json.loads(await run("nbdinfo", "--list", "--json", running.uri("")))
        # The size of w is no multiple of 4096, and its last bytes must stay within reach.
        assert {export["export-name"]: export["block_size_minimum"] for export in listed["exports"]} == {
            "v": 4096,
            "w": 512,
        }


async def test_the_only_export_is_the_default(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}) as running:
        assert (await run("nbdinfo", "--size", running.uri(""))).strip() == str(MIB)
        assert "no export named 'x'" in await run("nbdinfo", "--size", running.uri("x"), expect=1)


async def test_client_that_wants_one_extent_has_no_others_looked_for(short_path: Path) -> None:
    """Or a map of n extents, asked for one by one as qemu-img does, would find n * n."""
    volume = MemoryVolume(4 * MIB)
    volume.extents["base:allocation"] = [(4096, 0), (4096, 3)] * 512
    async with serving(short_path, {"v": volume}) as running:
        await run("qemu-img", "map", "--output=json", "-f", "raw", running.uri())
        assert len(volume.status_asked) >= 1024
        assert set(volume.status_asked) == {1}


async def test_map_of_many_extents_is_told_in_parts(short_path: Path) -> None:
    volume = MemoryVolume(32 * MIB)
    volume.extents["base:allocation"] = [(4096, 0), (4096, 3)] * 4096
    async with serving(short_path, {"v": volume}) as running:
        told = json.loads(await run("nbdinfo", "--map", "--json", running.uri()))
        assert [(entry["length"], entry["type"]) for entry in told] == volume.extents["base:allocation"]
        assert set(volume.status_asked) == {STATUS_EXTENTS}
        assert len(volume.status_asked) == 8192 // STATUS_EXTENTS


async def test_maps_are_those_of_the_volume(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    volume.extents = {
        "base:allocation": [(MIB, 0), (2 * MIB, 3), (MIB, 0)],
        "cutover:region": [(3 * MIB, 1), (MIB, 0)],
    }
    async with serving(short_path, {"v": volume}) as running:
        allocation = json.loads(await run("nbdinfo", "--map", "--json", running.uri()))
        assert [(entry["length"], entry["type"]) for entry in allocation] == [
            (MIB, 0),
            (2 * MIB, 3),
            (MIB, 0),
        ]
        regions = json.loads(await run("nbdinfo", "--map=cutover:region", "--json", running.uri()))
        assert [(entry["length"], entry["type"]) for entry in regions] == [(3 * MIB, 1), (MIB, 0)]


@pytest.mark.parametrize("alignment", [1, 4096])
async def test_nbdcopy_on_four_connections_in_and_out(short_path: Path, alignment: int) -> None:
    volume = MemoryVolume(48 * MIB, alignment)
    image, back = short_path / "in", short_path / "out"
    image.write_bytes(os.urandom(24 * MIB) + bytes(8 * MIB) + os.urandom(16 * MIB))
    async with serving(short_path, {"v": volume}) as running:
        options = ("--connections=4", "--requests=64", "--flush")
        await run("nbdcopy", *options, str(image), running.uri())
        assert volume.data == image.read_bytes()
        await run("nbdcopy", *options, running.uri(), str(back))
        await run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), str(back))
        assert running.server.clients("v") == []


async def test_qemu_writes_zeroes_discards_and_flushes(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    volume.data[:] = b"\xff" * MIB
    commands = ["write -f -P 1 0 4k", "write -z 64k 64k", "write -z -u 256k 64k", "discard 128k 64k", "flush"]
    arguments = [part for command in commands for part in ("-c", command)]
    async with serving(short_path, {"v": volume}) as running:
        await run("qemu-io", "-t", "writeback", "-f", "raw", *arguments, running.uri())
        await run(
            "qemu-io", "-f", "raw", "-r", "-c", "read -P 1 0 4k", "-c", "read -P 0 64k 128k", running.uri()
        )
    assert volume.data[:4096] == b"\x01" * 4096
    assert volume.data[64 << 10 : 192 << 10] == bytes(128 << 10)
    asked = [(request.kind.name, request.durable, request.may_punch) for request in volume.seen]
    assert ("WRITE", True, False) in asked
    assert ("ZERO", False, False) in asked
    assert ("ZERO", False, True) in asked
    assert ("TRIM", False, True) in asked
    assert any(kind == "FLUSH" for kind, _, _ in asked)


@pytest.mark.parametrize("alignment", [1, 4096])
async def test_fio_verifies_what_it_wrote(short_path: Path, alignment: int) -> None:
    async with serving(short_path, {"v": MemoryVolume(32 * MIB, alignment)}) as running:
        job = (
            "--name=v",
            "--ioengine=nbd",
            f"--uri={running.uri()}",
            "--rw=randwrite",
            "--size=32M",
            "--iodepth=32",
        )
        sizes = (
            "--bsrange=4k-256k",
            "--bs_unaligned=0",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
        )
        assert "err= 0" in await run("fio", *job, *sizes, f"--aux-path={short_path}")


async def test_nbdcopy_between_two_exports_of_one_server(short_path: Path) -> None:
    source, target = MemoryVolume(16 * MIB), MemoryVolume(16 * MIB)
    source.data[:] = os.urandom(16 * MIB)
    async with serving(short_path, {"source": source, "target": target}) as running:
        await run("nbdcopy", "--connections=2", running.uri("source"), running.uri("target"))
    assert source.data == target.data


ILLEGAL = """
import errno, sys
import nbd
size = 64 << 20
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
def expect(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except nbd.Error as e:
        assert e.errnum == error, (call.__name__, repr(args)[-50:], kwargs, e)
    else:
        assert error is None, (call.__name__, repr(args)[-50:], kwargs)
    h.pwrite(b"alive", 0)
    assert h.pread(5, 0) == b"alive"
nothing = lambda *_: 0
expect(errno.EINVAL, h.pread, 512, size)
expect(errno.EINVAL, h.pread, 1024, size - 512)
expect(errno.ENOSPC, h.pwrite, bytes(1024), size - 512)
expect(errno.ENOSPC, h.zero, 1024, size - 512)
expect(errno.EINVAL, h.trim, 1024, size - 512)
expect(errno.EINVAL, h.cache, 1024, size - 512)
expect(errno.EINVAL, h.block_status, 1024, size - 512, nothing)
expect(errno.EINVAL, h.block_status, 1024, 1 << 62, nothing)
expect(errno.EINVAL, h.pread, 512, 0, flags=1 << 9)
expect(errno.EINVAL, h.pwrite, bytes(512), 0, flags=1 << 9)
expect(errno.EINVAL, h.pwrite, bytes(512), 0, flags=nbd.CMD_FLAG_DF)
expect(errno.EINVAL, h.trim, 512, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
expect(errno.EINVAL, h.cache, 512, 0, flags=nbd.CMD_FLAG_NO_HOLE)
expect(None, h.pread, 512, 0, flags=nbd.CMD_FLAG_DF | nbd.CMD_FLAG_FUA)
expect(None, h.pread, 0, 0)
expect(None, h.pwrite, b"", 0)
expect(None, h.trim, 0, 0)
expect(errno.EINVAL, h.block_status, 0, 0, nothing)
expect(errno.EINVAL, h.pwrite, bytes((32 << 20) + 1), 0)
expect(errno.ENOSPC, h.pwrite, bytes(32 << 20), size - 512)
expect(None, h.pwrite, bytes(32 << 20), 0)
h.shutdown()
"""


async def test_illegal_requests_are_refused_and_the_connection_kept(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(64 * MIB)}) as running:
        await run(PYTHON_WITH_LIBNBD, "-c", ILLEGAL, running.uri())


UNALIGNED = """
import errno, sys
import nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.set_request_block_size(False) if sys.argv[2] == "no" else None
h.connect_uri(sys.argv[1])
try:
    h.pwrite(b"x" * 100, 1000)
except nbd.Error as e:
    print(errno.errorcode[e.errnum])
else:
    print(h.pread(100, 1000) == b"x" * 100)
"""


@pytest.mark.parametrize(("asks", "said"), [("yes", "EINVAL"), ("no", "True")])
async def test_block_size_binds_those_who_asked_for_it(short_path: Path, asks: str, said: str) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB, alignment_bytes=4096)}) as running:
        assert (await run(PYTHON_WITH_LIBNBD, "-c", UNALIGNED, running.uri(), asks)).strip() == said


UNALIGNED_READS = """
import sys
import nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.set_request_block_size(False)
h.connect_uri(sys.argv[1])
content = open(sys.argv[2], "rb").read()
for offset, length in ((4095, 2), (4000, 4096), (1, 64 << 10), (4096, 100), (0, 4096), ((1 << 20) - 1, 1)):
    assert h.pread(length, offset) == content[offset : offset + length], (offset, length)
"""


async def test_unaligned_reads_have_room_for_whole_blocks(short_path: Path) -> None:
    volume = MemoryVolume(MIB, alignment_bytes=4096)
    volume.data[:] = os.urandom(MIB)
    (short_path / "content").write_bytes(volume.data)
    async with serving(short_path, {"v": volume}) as running:
        await run(PYTHON_WITH_LIBNBD, "-c", UNALIGNED_READS, running.uri(), str(short_path / "content"))


SIMPLE = """
import sys
import nbd
h = nbd.NBD()
h.set_request_structured_replies(False)
h.connect_uri(sys.argv[1])
assert not h.get_structured_replies_negotiated()
assert not h.can_df()
h.pwrite(b"y" * 200000, 5)
assert h.pread(200000, 5) == b"y" * 200000
h.zero(100, 5)
h.flush()
h.set_strict_mode(0)
try:
    h.pread(512, 1 << 40)
except nbd.Error as e:
    assert e.errnum == 22
assert h.pread(1, 200) == b"y"
h.shutdown()
"""


async def test_client_without_structured_replies(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}) as running:
        await run(PYTHON_WITH_LIBNBD, "-c", SIMPLE, running.uri())


FAILING = """
import errno, sys
import nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for call in (lambda: h.pwrite(b"x", 0), lambda: h.trim(512, 0), lambda: h.pread(512, 0), lambda: h.flush(),
             lambda: h.zero(512, 0, flags=nbd.CMD_FLAG_FAST_ZERO)):
    try:
        call()
    except nbd.Error as e:
        print(errno.errorcode[e.errnum])
    else:
        print("done")
"""


async def test_errors_of_the_volume_reach_the_client(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    volume.can_zero_fast = False
    async with serving(short_path, {"v": volume}) as running:
        volume.errors = {
            Kind.READ: errno.EIO,
            Kind.WRITE: errno.ENOSPC,
            Kind.TRIM: errno.EDQUOT,
            Kind.FLUSH: errno.ESHUTDOWN,
        }
        said = await run(PYTHON_WITH_LIBNBD, "-c", FAILING, running.uri())
        assert said.split() == ["ENOSPC", "ENOSPC", "EIO", "ESHUTDOWN", "ENOTSUP"]


async def test_read_only_export(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}, read_only=True) as running:
        assert json.loads(await run("nbdinfo", "--json", running.uri()))["exports"][0]["is_read_only"]
        client = await running.connect()
        assert await client.write(0, b"x" * 100) == 1
        assert await client.read(0, 100) == bytes(100)
        client.close()
