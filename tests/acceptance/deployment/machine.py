"""A machine by hand, with a real systemd that runs the units of deploy/systemd, in namespaces of its own."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMAND_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 60.0
ASK_AGAIN_S = 0.05
_HERE = Path(__file__).parent
_VENDOR = Path("/lib/systemd/system")
# What Cutover's units stand on. The rest of a machine's units would see to the real one: its devices, clock, kernel.
_FOUNDATION = (
    "basic.target", "sysinit.target", "sockets.target", "shutdown.target", "umount.target", "network-online.target",
    "network.target", "multi-user.target", "systemd-journald.service", "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
)  # fmt: skip


class Machine:
    """One that runs."""

    def __init__(self, pid: int) -> None:
        """`pid` is that of its first process, as it is seen from outside."""
        self._pid = pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        inside = [
            "nsenter",
            "--target",
            str(self._pid),
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--cgroup",
            "--wd=/",
            "--",
        ]
        path = "PATH=/opt/cutover/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return subprocess.run(
            [*inside, "env", "-i", path, "HOME=/root", "LD_LIBRARY_PATH=/opt/python/lib", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip

    def do(self, *words: str) -> str:
        """Run what has to succeed; what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def show(self, unit: str, *properties: str) -> list[str]:
        """Properties of a unit."""
        return [
            self.do("systemctl", "show", "--value", f"--property={each}", unit).strip() for each in properties
        ]

    def until_active(self, units: Sequence[str]) -> None:
        """Wait until units are. systemd's command line has no event to wait for."""
        end = time.monotonic() + READY_TIMEOUT_S
        while self.run("systemctl", "is-active", *units).returncode != 0 or not self._all_are(units):
            assert time.monotonic() < end, self.log()
            time.sleep(ASK_AGAIN_S)

    def until_well(self, *checks: str) -> None:
        """Wait until `cutover doctor` finds nothing wrong in these checks, and has something to say of each."""
        end = time.monotonic() + READY_TIMEOUT_S
        while not self._is_well(checks):
            assert time.monotonic() < end, self.log()
            time.sleep(ASK_AGAIN_S)

    def _is_well(self, checks: Sequence[str]) -> bool:
        said = self.run("env", "CUTOVER_CONFIG=/etc/cutover/operator.toml", "cutover", "doctor", "--json")
        found = [each for each in json.loads(said.stdout)["checks"] if each["check"] in checks]
        return {each["check"] for each in found} == set(checks) and all(
            each["outcome"] == "ok" for each in found
        )

    def _all_are(self, units: Sequence[str]) -> bool:
        return self.run("systemctl", "is-active", *units).stdout.split() == ["active"] * len(units)

    def log(self) -> str:
        """The last that was said there."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--lines=60").stdout


def lay_out(folder: Path, units: Path) -> None:
    """Make the folders that `boot` wants, with the units, all enabled as their `[Install]` sections say."""
    for each in ("root", "upper", "volumes"):
        (folder / each).mkdir(parents=True)
    shutil.copytree(units, folder / "units")
    for name in _FOUNDATION:
        shutil.copy2(_VENDOR / name, folder / "units" / name)
    early = folder / "units" / "sysinit.target.wants"
    early.mkdir()
    (early / "systemd-journald.service").symlink_to("../systemd-journald.service")
    for unit in units.iterdir():
        for line in unit.read_text().splitlines():
            if line.startswith("WantedBy="):
                wants = folder / "units" / f"{line.partition('=')[2]}.wants"
                wants.mkdir(exist_ok=True)
                (wants / unit.name).symlink_to(f"../{unit.name}")


@contextmanager
def booted(folder: Path, image: Path, name: str) -> Iterator[Machine]:
    """A machine over a folder that was laid out; it ends as a power cut would end it."""
    with (folder / "boot.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--uts", "--cgroup", "--fork", "--kill-child", "--propagation", "private",
             str(_HERE / "boot"), str(folder), str(image), sys.base_prefix, name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Machine(_first_process(process, folder / "boot.log"))
    finally:
        process.kill()
        process.wait(COMMAND_TIMEOUT_S)


def _first_process(unshare: subprocess.Popen[bytes], log: Path) -> int:
    """The process that systemd has become, once it answers."""
    end = time.monotonic() + READY_TIMEOUT_S
    while True:
        assert unshare.poll() is None, log.read_text()
        assert time.monotonic() < end, f"systemd does not answer: {log.read_text()}"
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        with contextlib.suppress(FileNotFoundError):  # it has not become systemd yet
            if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
                pid = int(children[0])
                if Machine(pid).run("systemctl", "is-system-running").stdout.strip() in {
                    "running",
                    "starting",
                    "degraded",
                }:
                    return pid
        time.sleep(ASK_AGAIN_S)
