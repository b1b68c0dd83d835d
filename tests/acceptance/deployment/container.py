"""A container by hand, because no Docker engine runs here: bubblewrap's namespaces, and what Compose would put into them.

The file system is read only and holds the system's programs, the image's folder and what is mounted; the user is another one
without privileges; the system calls of io_uring are refused as Docker's filter refuses them; the network is one that
the containers of a test share, in which every service's name is an address of the loopback interface.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.deployment.composition import Composition, Service

COMMAND_TIMEOUT_S = 60.0
_SYSTEM = ("/usr", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ld.so.cache")
_IO_URING_CALLS = (425, 426, 427)  # on every architecture
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # classic BPF: absolute word, jump if equal, return a constant
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM


def docker_filter() -> bytes:
    """A seccomp filter that refuses io_uring and nothing else; io_uring is the one thing that Docker's own refuses us."""
    rows = [(_LOAD, 0, 0, 0)]
    rows += [(_EQUALS, len(_IO_URING_CALLS) - index, 0, call) for index, call in enumerate(_IO_URING_CALLS)]
    rows += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("HBBI", *row) for row in rows)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image brings: folders with their content, empty ones, an environment, a working directory."""

    folders: Mapping[str, Path]
    empty_folders: Sequence[str]
    environment: Mapping[str, str]
    folder: str


@dataclass(slots=True)
class Container:
    """One that runs. `pid` is the service's own, as it is seen from outside."""

    name: str
    service: Service
    process: subprocess.Popen[bytes]
    pid: int
    log: Path
    environment: Mapping[str, str]
    network: str

    def is_healthy(self) -> bool:
        """What its health check says, run as `docker exec` would run it."""
        kind, *command = self.service.healthcheck.test
        assert kind == "CMD"
        inside = [
            "nsenter",
            "--target",
            str(self.pid),
            "--user",
            "--mount",
            "--net",
            "--preserve-credentials",
            "--wd=/",
            "--",
        ]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        done = subprocess.run(
            [*inside, "env", "--ignore-environment", *variables, *command],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def stop(self) -> int:
        """SIGTERM, and SIGKILL when the grace period is over; the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(self.service.stop_grace_period)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            return self.process.wait(COMMAND_TIMEOUT_S)


@dataclass(slots=True)
class Engine:
    """What an engine has: images, volumes, a network."""

    composition: Composition
    files: Path  # what relative paths in the composition begin at
    images: Mapping[str, Image]
    folder: Path
    network: str
    running: dict[str, Container] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        """Where a volume is, seen from outside."""
        place = Path(name) if "/" in name else self.folder / "volumes" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def start(self, name: str) -> Container:
        """Start a service and have the process that it is."""
        service = self.composition.services[name]
        log = self.folder / f"{name}.log"
        read, write = os.pipe()
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._command(service, service.command, info_fd=write),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(write,),
            )  # fmt: skip
        os.close(write)
        with os.fdopen(read) as told:
            said = told.read()
        assert said, f"{name} did not start: {log.read_text()}"
        pid = json.loads(said)["child-pid"]
        container = Container(name, service, process, pid, log, self._environment(service), self.network)
        self.running[name] = container
        return container

    def run(self, name: str, *words: str, volumes: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm --volume VOLUME NAME WORDS`."""
        service = self.composition.services[name]
        service = service.model_copy(update={"volumes": [*service.volumes, *volumes]})
        return subprocess.run(
            self._command(service, list(words) or service.command),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip

    def stop(self, name: str) -> int:
        return self.running.pop(name).stop()

    def kill_all(self) -> None:
        for container in self.running.values():
            container.process.kill()  # bubblewrap's; what it started dies with it
            container.process.wait(COMMAND_TIMEOUT_S)
        self.running.clear()

    # ------------------------------------------------------------------ how

    def _environment(self, service: Service) -> Mapping[str, str]:
        return {"HOME": "/", **self.images[service.image].environment, **service.environment}

    def _command(self, service: Service, command: Sequence[str], *, info_fd: int | None = None) -> list[str]:
        image = self.images[service.image]
        user, _, group = service.user.partition(":")
        words = [
            "ip",
            "netns",
            "exec",
            self.network,
            sys.executable,
            "-c",
            _WITH_FILTER,
            docker_filter().hex(),
        ]
        words += ["bwrap", "--unshare-user", "--uid", user, "--gid", group, "--die-with-parent", "--clearenv"]
        words += ["--info-fd", str(info_fd)] if info_fd is not None else []
        words += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys"]
        for each in ("bin", "sbin", "lib", "lib64"):
            words += ["--symlink", f"usr/{each}", f"/{each}"]
        for each in (*_SYSTEM, sys.base_prefix):
            words += ["--ro-bind", each, each]
        for inside, outside in image.folders.items():
            words += ["--ro-bind", str(outside), inside]
        for inside in image.empty_folders:
            words += ["--dir", inside]
        words += ["--ro-bind", str(self._hosts()), "/etc/hosts"]
        words += self._mounts(service)
        words += ["--remount-ro", "/"] if service.read_only else []
        for name, value in self._environment(service).items():
            words += ["--setenv", name, value]
        return [*words, "--chdir", service.working_dir or image.folder, "--", *service.entrypoint, *command]

    def _mounts(self, service: Service) -> Iterator[str]:
        for folder in service.tmpfs:
            yield from ("--tmpfs", folder)
        for volume in service.volumes:
            name, _, target = volume.partition(":")
            yield from ("--bind", str(self.volume(name)), target)
        for known, mounted in (
            (self.composition.configs, service.configs),
            (self.composition.secrets, service.secrets),
        ):
            for each in mounted:
                yield from ("--ro-bind", str(self.files / known[each.source].file), each.target)

    def _hosts(self) -> Path:
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.composition.services)}\n")
        return hosts


# bubblewrap reads the filter from a descriptor, which this leaves open for it.
_WITH_FILTER = """
import os, sys
fd = os.memfd_create("filter", 0)
os.write(fd, bytes.fromhex(sys.argv[1]))
os.lseek(fd, 0, os.SEEK_SET)
os.execvp(sys.argv[2], [sys.argv[2], "--seccomp", str(fd), *sys.argv[3:]])
"""


@contextmanager
def private_network() -> Iterator[str]:
    """A network of its own, with nothing but a loopback interface."""
    name = f"cutover-{uuid.uuid4().hex[:8]}"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
