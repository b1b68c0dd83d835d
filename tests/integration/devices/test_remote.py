"""Remote exports as devices, against real servers: nbdkit and qemu-nbd, by Unix socket and TCP."""

import errno
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.write_cloning.devices import errors
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Extent, Unfenced, ZeroMode
from services.write_cloning.devices.remote import RemoteDevice
from services.write_cloning.devices.remote_connection import DEPTH
from services.write_cloning.devices.remote_opening import RemoteExports, same_export
from tests.integration.devices.servers import Server, nbdkit, qemu_nbd
from tests.integration.devices.tools import KIB, MIB, Answer, Driver, pattern, until

EVERYTHING = ("nbd://**", "nbd+unix:///**")


@pytest.fixture
def exports() -> RemoteExports:
    return RemoteExports(AllowedPaths(EVERYTHING))


@pytest.fixture(params=["nbdkit unix", "nbdkit tcp", "qemu unix", "qemu tcp"])
def server(request: pytest.FixtureRequest, folder: Path, disk: Path) -> Iterator[Server]:
    """Each server over the same disk of 16 MiB."""
    program, _, transport = request.param.partition(" ")
    is_tcp = transport == "tcp"
    if program == "nbdkit":
        with nbdkit(folder, "file", str(disk), tcp=is_tcp) as running:
            yield running
    else:
        with qemu_nbd(folder, disk, "--discard=unmap", "--detect-zeroes=off", tcp=is_tcp) as running:
            yield running


@pytest.fixture
async def device(exports: RemoteExports, server: Server) -> AsyncIterator[RemoteDevice]:
    device = await exports.open(server.uri)
    yield device
    device.vouch_gone()
    await device.close()


async def test_what_is_written_is_read_back_and_on_the_disk(
    device: RemoteDevice, pool: BufferPool, disk: Path
) -> None:
    driver = Driver(device, pool)
    assert (device.size_bytes, device.engine_name) == (16 * MIB, "nbd")
    data = pattern(300 * KIB)
    assert await driver.write(8 * KIB, data, start=512) == 0
    assert await driver.write(8 * MIB, b"durable!" * 512, durable=True) == 0
    assert await driver.flush() == 0
    assert await driver.read(8 * KIB, len(data), start=4096) == data
    assert device.outstanding == 0
    content = disk.read_bytes()
    assert content[8 * KIB : 8 * KIB + len(data)] == data
    assert content[8 * MIB : 8 * MIB + 4096] == b"durable!" * 512


async def test_zeroes_holes_and_prefetching(device: RemoteDevice, pool: BufferPool, disk: Path) -> None:
    driver = Driver(device, pool)
    assert await driver.write(0, pattern(4 * MIB)) == 0
    assert await driver.zero(1 * MIB, 1 * MIB, ZeroMode.PUNCH) == 0
    assert await driver.zero(2 * MIB, 1 * MIB, ZeroMode.ALLOCATE, durable=True) == 0
    assert await driver.prefetch(0, 4 * MIB) == 0
    assert await driver.read(1 * MIB, 2 * MIB) == bytes(2 * MIB)
    assert await driver.read(3 * MIB, 1 * MIB) == pattern(4 * MIB)[3 * MIB :]
    extents = await device.extents(0, device.size_bytes)
    assert sum(extent.length for extent in extents) == device.size_bytes
    assert extents[0] == Extent(0, 1 * MIB, is_hole=False)
    assert extents[-1] == Extent(4 * MIB, 12 * MIB, is_hole=True)
    assert await device.extents(0, device.size_bytes, 1) == extents[:1]
    assert disk.read_bytes()[: 4 * MIB] == pattern(1 * MIB) + bytes(2 * MIB) + pattern(4 * MIB)[3 * MIB :]


async def test_many_requests_at_once_all_land_in_their_places(device: RemoteDevice, pool: BufferPool) -> None:
    """More than the server is given at once; the rest waits its turn."""
    answers = []
    buffers = [pool.take(4096) for _ in range(3 * DEPTH)]
    for number, buffer in enumerate(buffers):
        buffer.view[:4096] = pattern(4096, seed=number)
        answers.append(answer := Answer())
        device.write(number * 4096, buffer, 0, 4096, answer.done, number)
    assert device.outstanding == 3 * DEPTH
    assert [await answer.error() for answer in answers] == [0] * (3 * DEPTH)
    for buffer in buffers:
        buffer.view[:4096] = bytes(4096)
    answers = []
    for number, buffer in enumerate(buffers):
        answers.append(answer := Answer())
        device.read(number * 4096, buffer, 0, 4096, answer.done, None)
    assert [await answer.error() for answer in answers] == [0] * (3 * DEPTH)
    for number, buffer in enumerate(buffers):
        assert buffer.view[:4096] == pattern(4096, seed=number)
        buffer.release()


async def test_what_exceeds_the_payload_limit_goes_in_pieces(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    filters = ("--filter=blocksize-policy", "file", str(disk), "blocksize-maximum=65536")
    with nbdkit(folder, *filters, "blocksize-minimum=512", "blocksize-preferred=4096") as server:
        device = await exports.open(server.uri)
        assert device.alignment_bytes == 512
        driver = Driver(device, pool)
        data = pattern(MIB)
        assert await driver.write(512, data) == 0
        assert await driver.write(4 * MIB, data, durable=True) == 0
        assert await driver.read(512, MIB) == data
        await device.close()
    assert disk.read_bytes()[4 * MIB : 5 * MIB] == data


async def test_server_without_zeroes_fua_and_extents_is_served_by_plain_writes_and_flushes(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    disk.write_bytes(pattern(MIB))
    log = folder / "log"
    shell = (
        f"get_size=echo {MIB}", f"pread=dd if={disk} skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none",
        f"pwrite=dd of={disk} seek=$4 conv=notrunc oflag=seek_bytes status=none; echo write >> {log}",
        f"flush=echo flush >> {log}", "can_fua=echo none", "can_write=exit 0", "can_flush=exit 0",
    )  # fmt: skip
    with nbdkit(folder, "--filter=nozero", "eval", *shell) as server:
        device = await exports.open(server.uri)
        driver = Driver(device, pool)
        assert not device.can_zero_fast
        assert await driver.zero(4096, 8192, ZeroMode.PUNCH, durable=True) == 0
        assert await driver.read(0, 16384) == pattern(4096) + bytes(8192) + pattern(MIB)[12288:16384]
        assert log.read_text().split() == ["write", "flush"]
        assert await driver.write(0, pattern(4096, 5), durable=True) == 0
        assert log.read_text().split() == ["write", "flush", "write", "flush"]
        assert await device.extents(0, MIB) == [Extent(0, MIB, is_hole=False)]
        answer, told = Answer(), list[object]()
        device.zero(0, MIB, ZeroMode.PUNCH, True, answer.done, None, lambda context: told.append((context,)))
        assert await answer.error() == 0
        assert told == [(None,)], "each instalment is told of"
        await device.close()


@pytest.mark.parametrize(
    ("operation", "name"),
    [("pwrite", "EIO"), ("pwrite", "ENOSPC"), ("pread", "EIO"), ("zero", "EIO"), ("extents", "EIO")],
)
async def test_errors_of_the_server_are_the_requests_and_the_connection_stays(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool, operation: str, name: str
) -> None:
    arm = folder / "armed"
    fault = (f"error-{operation}={name}", f"error-{operation}-rate=100%", f"error-{operation}-file={arm}")
    with nbdkit(folder, "--filter=error", "file", str(disk), *fault) as server:
        device = await exports.open(server.uri)
        driver = Driver(device, pool)
        assert await driver.write(0, pattern(4096)) == 0
        arm.touch()
        expected = getattr(errno, name)
        match operation:
            case "pwrite":
                assert await driver.write(0, pattern(4096)) == expected
            case "pread":
                assert (await driver.try_read(0, 4096))[0] == expected
            case "zero":
                assert await driver.zero(0, 4096, ZeroMode.PUNCH) == expected
            case _:
                assert await device.extents(0, MIB) == [Extent(0, MIB, is_hole=False)]
        arm.unlink()
        assert await driver.read(0, 4096) == pattern(4096)
        assert not device.is_broken
        await device.close()


async def test_durable_write_without_room_puts_an_end_to_flushes(
    exports: RemoteExports, folder: Path, pool: BufferPool
) -> None:
    """The server flushed, and the storage below was full: writes before were lost, and the next flush was believed."""
    arm = folder / "armed"
    shell = (
        f"get_size=echo {MIB}", "can_write=exit 0", "can_flush=exit 0", "can_fua=echo emulate",
        "pwrite=cat >/dev/null", "pread=exit 1",
        f"flush=[ -f {arm} ] && {{ rm {arm}; echo ENOSPC >&2; exit 1; }}; exit 0",
    )  # fmt: skip
    with nbdkit(folder, "eval", *shell) as server:
        device = await exports.open(server.uri)
        driver = Driver(device, pool)
        assert await driver.write(0, pattern(4096)) == 0
        arm.touch()
        assert await driver.write(4096, pattern(4096), durable=True) == errno.ENOSPC
        assert device.flush_error == errno.ENOSPC
        assert await driver.flush() == errno.ENOSPC
        await device.close()


async def test_failed_flush_is_final(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    arm = folder / "armed"
    shell = (
        f"get_size=echo {MIB}", "can_write=exit 0", "can_flush=exit 0", "pwrite=cat >/dev/null", "pread=exit 1",
        f"flush=[ -f {arm} ] && {{ echo EIO >&2; exit 1; }}; exit 0",
    )  # fmt: skip
    with nbdkit(folder, "eval", *shell) as server:
        device = await exports.open(server.uri)
        driver = Driver(device, pool)
        assert await driver.flush() == 0
        arm.touch()
        assert await driver.flush() == errno.EIO
        arm.unlink()
        assert await driver.flush() == errno.EIO
        assert await driver.write(0, bytes(512), durable=True) == errno.EIO
        assert await driver.write(0, bytes(512)) == 0
        await device.close()


async def test_killed_server_fails_what_was_under_way_and_all_that_comes_later(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    with nbdkit(folder, "--filter=delay", "file", str(disk), "wdelay=60", "rdelay=60") as server:
        device = await exports.open(server.uri)
        assert isinstance(device, Unfenced)
        writes, reads = [Answer() for _ in range(5)], [Answer() for _ in range(2)]
        buffer = pool.take(4096)
        for number, answer in enumerate(writes):
            device.write(number * 4096, buffer, 0, 4096, answer.done, None)
        for answer in reads:
            device.read(0, buffer, 0, 4096, answer.done, None)
        assert await Driver(device, pool).prefetch(0, 4096) == 0  # so the server has all of them
        assert device.outstanding == 7
        server.kill()
        assert {await answer.error() for answer in (*writes, *reads)} == {errno.ECONNRESET}
        buffer.release()
        assert device.is_broken
        assert device.outstanding == 5, "writes may still land; reads cannot"
        assert await Driver(device, pool).write(0, bytes(512)) == errno.ECONNRESET
        assert await Driver(device, pool).flush() == errno.ECONNRESET
        with pytest.raises(OSError, match="broken"):
            await device.extents(0, MIB)
        await device.close()
        assert device.outstanding == 5
        device.vouch_gone()
        assert device.outstanding == 0


async def test_line_about_a_broken_connection_names_the_migration(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool, caplog: pytest.LogCaptureFixture
) -> None:
    """It had host and run alone, so that nobody who looked for a migration found it."""
    with nbdkit(folder, "file", str(disk)) as server:
        device = await exports.open(server.uri)
        device.belong_to("vol1")
        server.kill()
        assert (await Driver(device, pool).try_read(0, 512))[0] == errno.ECONNRESET
        await device.close()
    (line,) = [each for each in caplog.records if "the connection is broken" in each.getMessage()]
    assert line.migration == "vol1"  # type: ignore[attr-defined]


async def test_export_is_in_use_until_the_lost_requests_are_vouched_for(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    with nbdkit(folder, "--filter=delay", "file", str(disk), "wdelay=60") as server:
        device = await exports.open(server.uri)
        with pytest.raises(errors.DeviceBusyError, match="in use"):
            await exports.open(server.uri)
        answer, buffer = Answer(), pool.take(4096)
        device.write(0, buffer, 0, 4096, answer.done, None)
        assert (await Driver(device, pool).try_read(0, 512))[0] == 0
        server.kill()
        assert await answer.error() == errno.ECONNRESET
        buffer.release()
        await device.close()
    with nbdkit(folder, "file", str(disk)) as server:
        with pytest.raises(errors.DeviceBusyError, match="in use"):
            await exports.open(server.uri)
        device.vouch_gone()
        await (await exports.open(server.uri)).close()


async def test_server_that_stops_and_goes_on_answers_late_and_nothing_is_lost(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    with nbdkit(folder, "file", str(disk)) as server:
        device = await exports.open(server.uri)
        server.stop_answering()
        answer, buffer = Answer(), pool.take(4096)
        buffer.view[:4096] = pattern(4096)
        device.write(0, buffer, 0, 4096, answer.done, None)
        await until(lambda: buffer.references == 1)  # it is in the socket
        assert not answer.is_there
        assert device.outstanding == 1
        server.go_on()
        assert await answer.error() == 0
        buffer.release()
        assert device.outstanding == 0
        await device.close()


async def test_vouching_for_a_server_that_hangs_severs_the_connection(
    exports: RemoteExports, folder: Path, disk: Path, pool: BufferPool
) -> None:
    with nbdkit(folder, "file", str(disk)) as server:
        device = await exports.open(server.uri)
        server.stop_answering()
        answer, buffer = Answer(), pool.take(4096)
        device.write(0, buffer, 0, 4096, answer.done, None)
        device.vouch_gone()
        assert await answer.error() == errno.ECONNABORTED
        buffer.release()
        assert device.outstanding == 0
        await device.close()


# ------------------------------------------------------------------------------------------------------ what is refused


async def test_read_only_export_is_refused_as_something_to_write(
    exports: RemoteExports, folder: Path, disk: Path
) -> None:
    with nbdkit(folder, "--readonly", "file", str(disk)) as server:
        with pytest.raises(errors.DeviceReadOnlyError, match="read-only"):
            await exports.open(server.uri)
        await (await exports.open(server.uri, writable=False)).close()


async def test_server_without_flush_is_refused(exports: RemoteExports, folder: Path) -> None:
    shell = (f"get_size=echo {MIB}", "pread=exit 1", "pwrite=exit 1", "can_write=exit 0", "can_flush=exit 3")
    with nbdkit(folder, "eval", *shell) as server, pytest.raises(errors.NoFlushError, match="durable"):
        await exports.open(server.uri)


@pytest.mark.parametrize(
    ("size", "error"), [("0", errors.DeviceEmptyError), ("1000", errors.DeviceSizeError)]
)
async def test_odd_sizes_are_refused(
    exports: RemoteExports, folder: Path, size: str, error: type[Exception]
) -> None:
    with nbdkit(folder, "memory", size) as server, pytest.raises(error):
        await exports.open(server.uri)


async def test_unknown_export_is_missing(exports: RemoteExports, folder: Path, disk: Path) -> None:
    with qemu_nbd(folder, disk, "--export-name=disk") as server:
        with pytest.raises(errors.DeviceMissingError, match="does not exist"):
            await exports.open(server.uri)
        device = await exports.open(server.uri.replace(":///", ":///disk"))
        assert device.identity.token == server.uri.replace(":///", ":///disk")
        await device.close()


async def test_nobody_listening_is_missing(exports: RemoteExports, folder: Path) -> None:
    for uri in (f"nbd+unix:///?socket={folder}/nobody.sock", "nbd://127.0.0.1:1/"):
        with pytest.raises(errors.DeviceMissingError, match="cannot be reached"):
            await exports.open(uri)


async def test_server_that_hangs_has_a_deadline(exports: RemoteExports, folder: Path, disk: Path) -> None:
    with nbdkit(folder, "file", str(disk)) as server:
        server.stop_answering()
        with pytest.raises(errors.DeviceHangsError, match=r"within 0\.2 s"):
            await exports.open(server.uri, deadline_s=0.2)
        server.go_on()
        await (await exports.open(server.uri)).close()


async def test_only_what_the_config_allows_is_connected_to(folder: Path, disk: Path) -> None:
    exports = RemoteExports(AllowedPaths([f"nbd+unix:///*?socket={folder}/other*"]))
    link = folder / "other.sock"
    link.symlink_to(folder / "nbdkit.sock")
    with nbdkit(folder, "file", str(disk)) as server:
        for uri in (server.uri, f"nbd+unix:///?socket={link}"):
            with pytest.raises(errors.PathNotAllowedError, match="not allowed here"):
                await exports.open(uri)
        assert await same_export(server.uri, f"nbd+unix:///?socket={link}")
        assert not await same_export(server.uri, f"nbd+unix:///x?socket={link}")
    assert await same_export("nbd://localhost:1/a", "nbd://127.0.0.1:1/a")
    assert not await same_export("nbd://localhost:1/a", "nbd://127.0.0.1:2/a")
