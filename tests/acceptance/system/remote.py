"""Servers behind remote devices that can be told to fail, and the end of migrations whose servers are gone."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.system.plain_client import Refused
from tests.acceptance.system.whole_system import System
from tests.integration.devices.servers import Server, nbdkit

CLEAN_UP_TIMEOUT_S = 10.0


class Faulty:
    """A server over an image, one of whose operations fails while it is armed."""

    def __init__(self, server: Server, arm: Path) -> None:
        self.uri = server.uri
        self.server = server
        self._arm = arm

    def fail(self) -> None:
        """From here on; a server looks whether the file is there before each operation."""
        self._arm.touch()

    def mend(self) -> None:
        self._arm.unlink()


@contextmanager
def faulty(image: Path, operation: str, error: str = "EIO") -> Iterator[Faulty]:
    """`operation` is pwrite, pread, zero or flush; `error` is the name of an errno that NBD knows."""
    assert hasattr(errno, error)
    arm = image.with_suffix(".armed")
    if operation == "flush":
        arguments: tuple[str, ...] = ("eval", *_shell(image, arm, error))
    else:
        fault = (
            f"error-{operation}={error}",
            f"error-{operation}-rate=100%",
            f"error-{operation}-file={arm}",
        )
        arguments = ("--filter=error", "file", str(image), *fault)
    with nbdkit(image.parent, *arguments, name=image.stem) as server:
        yield Faulty(server, arm)


def _shell(image: Path, arm: Path, error: str) -> tuple[str, ...]:
    """Nbdkit's filter knows no flushes."""
    return (
        f"get_size=stat -c %s {image}", "can_write=exit 0", "can_flush=exit 0",
        f"pread=dd if={image} skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none",
        f"pwrite=dd of={image} seek=$4 conv=notrunc oflag=seek_bytes status=none",
        f"flush=[ -f {arm} ] && {{ echo {error} >&2; exit 1; }}; exit 0",
    )  # fmt: skip


def clean_up_all(system: System) -> None:
    """End every migration, though its servers have just gone, and a fault may be on its way from state to state."""
    end = time.monotonic() + CLEAN_UP_TIMEOUT_S
    for migration in system.client.ask("cutover.control.list").accepted()["migrations"]:
        is_there = True
        while is_there:
            try:
                system.client.command("vouch", migration["name"])
                system.clean_up(migration["name"])
                is_there = False
            except Refused:
                if time.monotonic() > end:
                    raise
