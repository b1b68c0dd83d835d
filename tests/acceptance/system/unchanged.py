"""What a refused command must leave as it was: the journal, the host and its witnesses, the devices and their locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.system.devices import digest, is_free
from tests.acceptance.system.whole_system import System


@contextmanager
def nothing_changes(system: System, *devices: Path) -> Iterator[None]:
    """Compare everything before with everything after. Devices that were free have to be free again."""
    before = _everything(system, devices)
    yield
    after = _everything(system, devices)
    for what, value in before.items():
        assert after[what] == value, f"{what} changed"


def _everything(system: System, devices: tuple[Path, ...]) -> dict[str, object]:
    return {
        "the journal": system.client.journal_length(),
        "the host": system.host_status(),
        "the witnesses": system.witnesses(),
        **{f"{device}": _device(device) for device in devices},
    }


def _device(device: Path) -> tuple[object, ...]:
    status = device.stat()
    return (digest(device), status.st_size, status.st_blocks, status.st_mode, status.st_ino, is_free(device))
