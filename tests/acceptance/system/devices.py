"""Files, loop devices and mounts for tests. What is made here is gone afterwards, frozen or not."""

import fcntl
import hashlib
import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
COMMAND_TIMEOUT_S = 20.0

_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock


def run(*command: str) -> str:
    """Run a program that has to succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


def empty_file(path: Path, size_bytes: int) -> Path:
    """A file that is one hole."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def full_file(path: Path, size_bytes: int, *, seed: int) -> Path:
    """A file of random bytes, the same for the same seed."""
    path.write_bytes(random.Random(seed).randbytes(size_bytes))
    return path


def digest(path: Path) -> str:
    """Of the content; read past the page cache's owner where it is a block device."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_free(path: Path) -> bool:
    """Whether nobody has a device locked, by either of the locks that programs look at."""
    fd = os.open(path, os.O_RDWR | (os.O_EXCL if path.is_block_device() else 0))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@contextmanager
def loop_device(backing: Path, *options: str) -> Iterator[Path]:
    """A block device over a file."""
    device = run("losetup", "--find", "--show", *options, str(backing))
    try:
        yield Path(device)
    finally:
        run("losetup", "--detach", device)


@contextmanager
def mounted(device: Path, where: Path) -> Iterator[Path]:
    """A block device mounted; unmounted afterwards, lazily where someone still holds a file in it."""
    where.mkdir()
    run("mount", str(device), str(where))
    try:
        yield where
    finally:
        run("umount", "--lazy", str(where))


@contextmanager
def freezable(folder: Path, size_bytes: int) -> Iterator["Freezable"]:
    """A filesystem of its own that can be frozen: whoever writes to a file in it hangs. Never left frozen."""
    folder = Path(tempfile.mkdtemp(prefix="freezable-", dir=folder))
    backing = empty_file(folder / "backing.img", size_bytes)
    run("mkfs.ext4", "-q", str(backing))
    with loop_device(backing) as device, mounted(device, folder / "mounted") as where:
        filesystem = Freezable(where)
        try:
            yield filesystem
        finally:
            filesystem.thaw()


class Freezable:
    """A mounted filesystem."""

    def __init__(self, where: Path) -> None:
        self.path = where
        self._is_frozen = False

    def freeze(self) -> None:
        """Let no write to it finish, from here on."""
        run("fsfreeze", "--freeze", str(self.path))
        self._is_frozen = True

    def thaw(self) -> None:
        """Let them finish."""
        if self._is_frozen:
            run("fsfreeze", "--unfreeze", str(self.path))
            self._is_frozen = False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else's lock on a file, as util-linux's `flock` takes it."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
