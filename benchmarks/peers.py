"""The programs that Cutover is measured against, each set up as its users would for the same job.

A peer yields *stages*: an export to measure, or nothing but a copy that it has done. What it started is stopped when
the generator is closed.

Direct I/O: qemu opens the files with O_DIRECT. nbdkit's file plugin cannot; `cache=none`, which gives pages back as
soon as they are written, is the nearest that it has. nbdcopy reads and writes local files through the page cache, so
for direct I/O it copies between two exports of qemu-nbd that are opened with O_DIRECT. The results carry these notes.
"""

import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.files import Files
from benchmarks.processes import listening_server, stop
from benchmarks.qmp import Monitor
from benchmarks.workloads import Caching, System

NOTES = {
    System.NBDKIT: "direct: cache=none, since the file plugin has no O_DIRECT",
    System.NBDCOPY: "direct: between two exports of qemu-nbd with cache=none, since nbdcopy has no O_DIRECT",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What can be measured now: an export, a copy that has just been done, or both."""

    system: System
    uri: str | None = None
    copy_seconds: float | None = None


class Contender(Protocol):
    """One program, measured in one or more stages. One that `clones` must leave both files equal."""

    systems: tuple[System, ...]
    clones: bool

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """Start on these files, with sockets and the like in the folder; stop when closed."""


class Nbdkit:
    """`nbdkit file`."""

    systems: tuple[System, ...] = (System.NBDKIT,)
    clones: bool = False

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """One stage: the plain export."""
        path = folder / "nbdkit.sock"
        command = ["nbdkit", "--foreground", "file", str(files.source)]
        if files.caching is Caching.DIRECT:
            command.append("cache=none")
        with listening_server(command, path):
            yield Stage(System.NBDKIT, f"nbd+unix:///?socket={path}")


class QemuNbd:
    """`qemu-nbd`."""

    systems: tuple[System, ...] = (System.QEMU_NBD,)
    clones: bool = False

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """One stage: the plain export."""
        path = folder / "qemu-nbd.sock"
        with listening_server(_qemu_nbd(files.source, files.caching), path):
            yield Stage(System.QEMU_NBD, f"nbd+unix:///?socket={path}")


class StorageDaemonMirror:
    """`qemu-storage-daemon` with a write-blocking mirror: QEMU's way to clone every write."""

    systems: tuple[System, ...] = (System.QSD_MIRROR,)
    clones: bool = True

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """One stage: the export once the mirror is READY, and how long that took."""
        path = folder / "qsd.sock"
        process = subprocess.Popen(
            [
                "qemu-storage-daemon",
                *_raw_node("s", files.source, files.caching),
                *_raw_node("t", files.target, files.caching),
                "--nbd-server",
                f"addr.type=unix,addr.path={path}",
                "--export",
                "type=nbd,id=e,node-name=s,name=s,writable=on",
                "--chardev",
                "stdio,id=c",
                "--monitor",
                "chardev=c",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("qemu-storage-daemon has no monitor")
        try:
            monitor = Monitor(process.stdout, process.stdin)
            begin = time.monotonic()
            monitor.call(
                "blockdev-mirror", job_id="m", device="s", target="t", sync="full", copy_mode="write-blocking"
            )
            monitor.wait_for("BLOCK_JOB_READY")
            yield Stage(System.QSD_MIRROR, f"nbd+unix:///s?socket={path}", time.monotonic() - begin)
        finally:
            stop(process)
            process.stdin.close()
            process.stdout.close()


class Nbdcopy:
    """`nbdcopy`, which only copies."""

    systems: tuple[System, ...] = (System.NBDCOPY,)
    clones: bool = True

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """One stage: a copy of the source onto the target."""
        ends = [str(files.source), str(files.target)]
        with ExitStack() as servers:
            if files.caching is Caching.DIRECT:
                for index, file in enumerate((files.source, files.target)):
                    path = folder / f"nbdcopy-{index}.sock"
                    servers.enter_context(listening_server(_qemu_nbd(file, files.caching), path))
                    ends[index] = f"nbd+unix:///?socket={path}"
            begin = time.monotonic()
            subprocess.run(["nbdcopy", *ends], stdin=subprocess.DEVNULL, check=True)
            yield Stage(System.NBDCOPY, copy_seconds=time.monotonic() - begin)


PEERS: tuple[Contender, ...] = (Nbdkit(), QemuNbd(), StorageDaemonMirror(), Nbdcopy())


def _qemu_nbd(file: Path, caching: Caching) -> list[str]:
    cache = "none" if caching is Caching.DIRECT else "writeback"
    return [
        "qemu-nbd",
        "--persistent",
        "--shared=16",
        "--format=raw",
        f"--cache={cache}",
        "--aio=io_uring",
        str(file),
    ]


def _raw_node(name: str, file: Path, caching: Caching) -> list[str]:
    direct = "on" if caching is Caching.DIRECT else "off"
    return [
        "--blockdev",
        f"driver=file,node-name={name}0,filename={file},cache.direct={direct},aio=io_uring",
        "--blockdev",
        f"driver=raw,node-name={name},file={name}0",
    ]
