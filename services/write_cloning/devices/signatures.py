"""What is on a device already: a filesystem, a partition table, a volume of LVM or RAID, as `blkid` finds it.

`blkid` is given the open descriptor, never a name, so it looks at what will be overwritten and at nothing
else.
"""

import asyncio
import contextlib
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass

from services.write_cloning.devices.errors import SignatureProbeError, SignatureToolMissingError

DEADLINE_S = 10.0
KILL_PATIENCE_S = 1.0
_SYSTEM_FOLDERS = (
    "/usr/sbin:/sbin:/usr/bin:/bin"  # where blkid is, though an ordinary PATH may lack the first two
)
# What an operator calls it, where the word for its kind says less.
_TYPES = {
    "swap": "swap space",
    "swsuspend": "a hibernated system",
    "jbd": "the journal of a filesystem",
    "LVM1_member": "an LVM physical volume",
    "LVM2_member": "an LVM physical volume",
    "zfs_member": "a member of a ZFS pool",
}
_USAGES = {
    "filesystem": "a filesystem",
    "raid": "a member of a RAID or volume group",
    "crypto": "an encrypted volume",
    "partition table": "a partition table",
    "signatures": "several signatures",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What was found. `usage` is blkid's word for its kind (`filesystem`, `raid`, `crypto`, `partition table`…)."""

    type_name: str
    usage: str
    label: str = ""

    def __str__(self) -> str:
        label = f" labelled {self.label!r}" if self.label else ""
        kind = _TYPES.get(self.type_name) or _USAGES.get(self.usage, "a signature")
        return f"{kind} ({self.type_name}){label}"


async def find_signature(fd: int, *, deadline_s: float = DEADLINE_S) -> Signature | None:
    """Look for a signature on an open file or block device; None when there is none.

    Raises:
        SignatureToolMissingError: `blkid` is not installed.
        SignatureProbeError: it failed, or did not answer in time.
    """
    program = shutil.which("blkid", path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_FOLDERS)))
    if program is None:
        raise SignatureToolMissingError("blkid is not installed; it is in the package util-linux")
    status, output, complaint = await _run(program, fd, deadline_s)
    # blkid says «nothing found» also when it could not read; only what it prints tells.
    if complaint:
        raise SignatureProbeError(f"blkid could not look at the device: {complaint}")
    match status:
        case 0:
            return _parse(output)
        case 2:
            return None
        case 8:
            return Signature("which contradict each other", "signatures")
        case _:
            raise SignatureProbeError(f"blkid failed with exit status {status}")


async def _run(program: str, fd: int, deadline_s: float) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        program, "--probe", "--output", "export", f"/proc/self/fd/{fd}",
        stdin=DEVNULL, stdout=PIPE, stderr=PIPE, pass_fds=(fd,), env={"LC_ALL": "C"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(deadline_s):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise SignatureProbeError(f"blkid did not answer within {deadline_s:g} s") from None
    finally:
        await _end(process)
    return (
        process.returncode or 0,
        output.decode(errors="replace"),
        complaint.decode(errors="replace").strip(),
    )


async def _end(process: Process) -> None:
    """Leave no process behind, but wait only so long for one that the kernel holds on to."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_PATIENCE_S):
                await process.wait()


def _parse(output: str) -> Signature:
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    label = values.get("LABEL", "")
    if "TYPE" in values:
        return Signature(values["TYPE"], values.get("USAGE", "signature"), label)
    if "PTTYPE" in values:
        return Signature(values["PTTYPE"], "partition table")
    raise SignatureProbeError(f"blkid found something that it does not name: {output!r}")
