"""Block devices and a filesystem whose power can be cut: `disks.py` under nbdfuse, loop devices and a mount.

The devices keep their names over a cut, as disks do.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.system.devices import MIB, empty_file, run
from tests.acceptance.system.whole_system import ROOT
from tests.support.loops import make_loop_node

SOURCE, TARGET, STATE = "source", "target", "state"
STATE_BYTES = 48 * MIB
PATIENCE_S = 15.0
LOOK_S = 0.01


class Power:
    """Three disks at one supply: source, target, and the filesystem of everything that the system itself keeps."""

    def __init__(self, folder: Path, *, size_bytes: int, ignore_flushes: str = "") -> None:
        """Nothing is on yet. `ignore_flushes` is a disk that answers flushes and does nothing."""
        self.mounted = folder / "m"
        self._folder = folder
        self._ignore_flushes = ignore_flushes
        self.files = {
            SOURCE: empty_file(folder / "source.img", size_bytes),
            TARGET: empty_file(folder / "target.img", size_bytes),
            STATE: empty_file(folder / "state.img", STATE_BYTES),
        }
        run("mkfs.ext4", "-q", str(self.files[STATE]))
        self.mounted.mkdir()
        self.devices = {name: make_loop_node() for name in self.files}
        self._server: subprocess.Popen[str] | None = None
        self._mounts: list[subprocess.Popen[bytes]] = []

    # ------------------------------------------------------------------ on

    def switch_on(self) -> None:
        socket = self._folder / "power.sock"
        socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.crashes.disks", str(socket)]
        command += [f"{name}={file}" for name, file in self.files.items()]
        command += ["--ignore-flushes", self._ignore_flushes] if self._ignore_flushes else []
        self._server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._hear("ready")
        for name, device in self.devices.items():
            self._attach(name, device, socket)
        run("mount", str(self.devices[STATE]), str(self.mounted))

    def _attach(self, name: str, device: Path, socket: Path) -> None:
        file = self._folder / name
        file.touch()
        uri = f"nbd+unix:///{name}?socket={socket}"
        with (self._folder / "nbdfuse.log").open("ab") as log:
            self._mounts.append(
                subprocess.Popen(["nbdfuse", str(file), uri], stdin=subprocess.DEVNULL, stderr=log)
            )
        _until(lambda: _is_mounted(file), f"{file} is not mounted")
        run("losetup", "--direct-io=on", str(device), str(file))

    # ------------------------------------------------------------------ off

    def cut(self, survives: str, seed: int) -> None:
        """Off, at one instant. What the caches held is gone, but for what survives: none, all or some."""
        self._order(f"cut {survives} {seed}")

    def fail(self, name: str) -> None:
        """Let all writes to a disk fail from now on."""
        self._order(f"fail {name}")

    def close(self) -> None:
        """Off for good."""
        if self._server is not None:
            self._server.kill()
            self.let_go()
        for device in self.devices.values():
            device.unlink()

    def let_go(self) -> None:
        """Take away what is left of disks that are off; whoever used them has to be dead."""
        assert self._server is not None
        self._server.wait(PATIENCE_S)
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        self._server = None
        if _is_mounted(self.mounted):
            run("umount", "--lazy", str(self.mounted))
        for device in self.devices.values():
            if _is_attached(device):
                run("losetup", "--detach", str(device))
                _until(lambda device=device: not _is_attached(device), f"{device} is still in use")  # type: ignore[misc]
        for name in self.devices:
            if _is_mounted(self._folder / name):
                run("fusermount3", "-u", "-z", str(self._folder / name))
        for mount in self._mounts:
            mount.kill()
            mount.wait(PATIENCE_S)
        self._mounts = []

    def _order(self, line: str) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        self._hear("done")

    def _hear(self, word: str) -> None:
        assert self._server is not None
        assert self._server.stdout is not None
        said = self._server.stdout.readline().strip()
        assert said == word, f"the disks say {said!r}, not {word!r}"


def _is_mounted(path: Path) -> bool:
    """Of a file, too, and of one whose server is dead, unlike `Path.is_mount`."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _is_attached(device: Path) -> bool:
    return Path(f"/sys/block/{device.name}/loop/backing_file").exists()


def _until(holds: Callable[[], bool], trouble: str) -> None:
    """Mounts and loop devices tell nobody that they come and go."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, trouble
        time.sleep(LOOK_S)
