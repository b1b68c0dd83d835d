"""Writing a folder with everything in it, or nothing: an installation is whole, or is not there."""

import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from services.console.failures import ConsoleError

SECRET, OPEN = 0o600, 0o644
SECRET_FOLDER, OPEN_FOLDER = 0o700, 0o755
OTHERS_MAY_WRITE = 0o022
SECRETS = "secrets"
_TAG_BYTES = 4


@dataclass(frozen=True, slots=True)
class File:
    """One file's content and mode."""

    content: bytes = field(repr=False)
    mode: int = OPEN


def write(folder: Path, files: Mapping[PurePosixPath, File]) -> None:
    """Write all of them, or nothing: they are made aside, and then take their names at once.

    A folder that is there stays the one that it is, with its owner and its mode: it may be mounted there, or be somebody's place.

    Raises:
        ConsoleError: (`not-empty`) the folder holds something; `not-written`.
    """
    refuse_filled(folder)
    is_there = folder.is_dir()
    aside = f".{folder.name}.{secrets.token_hex(_TAG_BYTES)}.new"
    made = folder / aside if is_there else folder.with_name(aside)
    try:
        made.mkdir(mode=SECRET_FOLDER)
        with _held(made):
            for path, file in files.items():
                _write(made, path, file)
            _open(made)
            if is_there:
                _move_up(made)
            else:
                made.rename(folder)
    except OSError as error:
        raise ConsoleError(
            "not-written", f"{folder} cannot be made: {error.strerror}; nothing was written."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def clear_interrupted(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left: keys among it. What one still writes is held, and stays.

    Raises:
        ConsoleError: `not-written`.
    """
    pattern = f".{glob.escape(folder.name)}.{'[0-9a-f]' * (2 * _TAG_BYTES)}.new"
    for left in (*folder.parent.glob(pattern), *folder.glob(pattern)):
        try:
            with _held(left):
                shutil.rmtree(left)
        except BlockingIOError:
            continue
        except OSError as error:
            raise ConsoleError(
                "not-written",
                f"{left}, left by an interrupted `cutover init`, cannot be removed: {error.strerror}; nothing was written.",
            ) from error


@contextmanager
def _held(made: Path) -> Iterator[None]:
    """A folder that is being written, locked for as long as that goes on.

    Raises:
        BlockingIOError: another process has it.
    """
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _move_up(made: Path) -> None:
    """Give everything in a folder its place in the folder above, or nothing."""
    names = [each.name for each in made.iterdir()]
    try:
        for name in names:
            (made / name).rename(made.parent / name)
    except BaseException:
        for name in names:
            if not (made / name).exists():  # what is not here any more is there, and ours
                (made.parent / name).rename(made / name)
        raise


def open_to_others(folder: Path) -> str:
    """Who else may exchange what is in a folder, as a sentence; empty where nobody may."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & OTHERS_MAY_WRITE:
        return ""
    return f"{folder} was there with mode {mode:04o}: others may exchange what is in it, keys included (chmod go-w {folder})."


def refuse_filled(folder: Path) -> None:
    """Refuse a folder that holds anything, and a name that cannot become one.

    Raises:
        ConsoleError: `not-empty`.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConsoleError("not-empty", f"{folder} is there, and is no folder; nothing was written.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConsoleError(
            "not-empty",
            f"{folder} is not empty, and nothing in it is overwritten: name another folder; nothing was written.",
        )


def _open(made: Path) -> None:
    """Let others in where there is no secret. The umask had no say in it."""
    for folder in made.rglob("*"):
        if folder.is_dir():
            folder.chmod(SECRET_FOLDER if folder.name == SECRETS else OPEN_FOLDER)
    made.chmod(OPEN_FOLDER)


def _write(made: Path, path: PurePosixPath, file: File) -> None:
    target = made / path
    target.parent.mkdir(mode=SECRET_FOLDER, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, which was made with its mode
        opened.write(file.content)
        os.fchmod(descriptor, file.mode)
