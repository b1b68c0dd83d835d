"""What is on a remote export already: `blkid` is shown a file in memory, sparse and as long, that holds its ends.

Every signature that blkid knows lies in the first or in the last megabytes.
"""

import asyncio
import os

from services.write_cloning.devices import transfers
from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.errors import SignatureProbeError
from services.write_cloning.devices.remote import RemoteDevice
from services.write_cloning.devices.signatures import DEADLINE_S, Signature, find_signature

END_BYTES = 2 << 20


async def find_remote_signature(device: RemoteDevice, *, deadline_s: float = DEADLINE_S) -> Signature | None:
    """Look for a signature; None when there is none.

    Raises:
        SignatureToolMissingError: `blkid` is not installed.
        SignatureProbeError: the export could not be read, or not in time; or blkid failed.
    """
    fd = os.memfd_create("ends", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, device.size_bytes)
        try:
            async with asyncio.timeout(deadline_s):
                for offset in _ends(device.size_bytes):
                    await _copy(device, offset, min(END_BYTES, device.size_bytes - offset), fd)
        except TimeoutError:
            device.vouch_gone()  # or closing it would wait for the server; it was only asked to read, so nothing can land
            raise SignatureProbeError(
                f"{device.identity.name} could not be read within {deadline_s:g} s"
            ) from None
        return await find_signature(fd, deadline_s=deadline_s)
    finally:
        os.close(fd)


def _ends(size_bytes: int) -> list[int]:
    """Where the pieces begin that hold the first and the last megabytes: whole blocks of any size."""
    pieces = {0, max(0, size_bytes - END_BYTES) // END_BYTES, (size_bytes - 1) // END_BYTES}
    return [piece * END_BYTES for piece in sorted(pieces)]


async def _copy(device: RemoteDevice, offset: int, length: int, fd: int) -> None:
    buffer = Buffer(END_BYTES, None, [])
    error = await transfers.read(device, offset, buffer, length)
    if error:
        raise SignatureProbeError(f"{device.identity.name} could not be read: {os.strerror(error)}")
    os.pwrite(fd, buffer.view[:length], offset)
