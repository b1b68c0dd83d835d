"""The number of this life of the host: counted up, durably, before anything else is done; and the lock that makes it one life."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.write_cloning.storage import Storage
from shared.config.load import ConfigError
from shared.earlier_state import RUN, WITNESSES, earlier_state
from shared.migration.refusals import Code, Refusal

_BESIDE = "docs/OPERATING.md, «From one installation to another»"


def refuse_earlier_state(state_dir: Path, host: str) -> None:
    """See that no host begins anew beside the state that it had in an earlier installation.

    Raises:
        ConfigError: it would.
    """
    if found := earlier_state(state_dir, host):
        raise ConfigError(
            f"host.state_dir: {state_dir} is new, and {found} of an earlier installation, without which this host does not "
            f"begin: nobody would know any more which side of those is right. Move that state here ({_BESIDE}), or have it "
            "cleaned up by what it was made with, or put it out of the way."
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second service away from a state directory, for as long as this process lives.

    Raises:
        ConfigError: it cannot be made, or written.
        Refusal: another process has it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / WITNESSES).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"host.state_dir: {directory} cannot be used: {error.filename}: {error.strerror}."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"The state directory {directory} is in use by another write cloning service"
            raise Refusal(Code.BUSY, f"{message}; a host is served by one.") from None
        yield
    finally:
        os.close(descriptor)


async def next_run(storage: Storage) -> int:
    """Count up.

    Raises:
        ConfigError: the state directory cannot be read or written.
        Refusal: what was counted last is no number.
    """
    try:
        return await _counted(storage)
    except OSError as error:
        raise ConfigError(
            f"host.state_dir: the number of this run cannot be written: {error.strerror or error}. Make room there, or mend "
            "it; the host does not start without."
        ) from error


async def _counted(storage: Storage) -> int:
    content = await storage.get(RUN)
    try:
        run = int(content) + 1 if content is not None else 1
    except ValueError:
        raise Refusal(Code.BAD_REQUEST, f"The file {RUN!r} of the state directory holds no number.") from None
    await storage.put(RUN, str(run).encode())
    return run
