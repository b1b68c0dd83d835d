"""New files in a folder that is there, and other content for files that are: all of it, or nothing, unless the process is killed.

A file that is there stays the very same, with its owner and its mode: it may be mounted by itself into a container, which
would go on seeing the old one if another took its name.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from services.console.failures import ConsoleError
from services.console.new_folder import OPEN_FOLDER, SECRET, File


def put(folder: Path, made: Mapping[PurePosixPath, File], changed: Mapping[PurePosixPath, bytes]) -> None:
    """Make the ones, and change the others, each in this order.

    Raises:
        ConsoleError: `not-empty`: one that is to be made is there; `not-written`. Then everything is as it was. `half-done`
            naming what could not be put back.
    """
    there: list[Path] = []
    before: list[tuple[Path, bytes]] = []
    try:
        for path, file in made.items():
            _make(folder / path, file, there)
        for path, content in changed.items():
            before.append((folder / path, (folder / path).read_bytes()))
            _overwrite(folder / path, content)
    except FileExistsError as error:
        _undo(there, before)
        raise ConsoleError(
            "not-empty", f"{error.filename} is there, and is not overwritten; nothing was written."
        ) from error
    except OSError as error:
        _undo(there, before)
        raise ConsoleError(
            "not-written",
            f"{error.filename or folder} cannot be written: {error.strerror}; nothing was changed.",
        ) from error
    except BaseException:
        _undo(there, before)
        raise


def _make(path: Path, file: File, there: list[Path]) -> None:
    path.parent.mkdir(mode=OPEN_FOLDER, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET)
    there.append(path)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, which was made with its mode
        opened.write(file.content)
        if os.geteuid() == 0:  # whoever has the folder uses what is in it
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, file.mode)


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as opened:
        opened.write(content)
        opened.truncate()
        opened.flush()
        os.fsync(opened.fileno())


def _undo(there: list[Path], before: list[tuple[Path, bytes]]) -> None:
    left: dict[Path, str] = {}
    for path in there:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            left[path] = str(error.strerror)
    for path, content in before:
        try:
            if path.read_bytes() != content:
                _overwrite(path, content)
        except OSError as error:
            left[path] = str(error.strerror)
    if left:
        files = ", ".join(f"{path} ({why})" for path, why in left.items())
        raise ConsoleError(
            "half-done",
            f"Not everything could be written, and this not be put back: {files}. Have no server read it; make room, and run "
            "the command again, or put it back from a copy.",
        )
