"""Opens the devices of migrations: what this host's config allows, what suits each other, what is the same as recorded."""

from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.errors import (
    DeviceBusyError,
    DeviceForbiddenError,
    DeviceHangsError,
    DeviceMissingError,
    DeviceOperatingError,
    DeviceReadOnlyError,
    DeviceUnusableError,
    EngineFullError,
    PathNotAllowedError,
    SignatureProbeError,
    SignatureToolMissingError,
)
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.interface import Device
from services.write_cloning.devices.opening import leads_to, local_path, open_device, same_device, written_ns
from services.write_cloning.devices.remote import RemoteDevice
from services.write_cloning.devices.remote_opening import RemoteExports, same_export
from services.write_cloning.devices.remote_signatures import find_remote_signature
from services.write_cloning.devices.remote_uri import is_remote, parse_remote
from services.write_cloning.devices.signatures import find_signature
from services.write_cloning.last_changes import NO_FILE_NS, UNKNOWN_NS
from shared.config.model import HostConfig
from shared.migration.devices import DeviceIdentity, DeviceKind
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal

# The codes of the devices' own package, and what they are to the operator; what is not listed makes a device unsuitable.
_CODES = {
    DeviceMissingError: Code.DEVICE_MISSING,
    PathNotAllowedError: Code.DEVICE_NOT_ALLOWED,
    DeviceForbiddenError: Code.DEVICE_NOT_ALLOWED,
    DeviceBusyError: Code.DEVICE_BUSY,
    DeviceReadOnlyError: Code.DEVICE_READ_ONLY,
    DeviceHangsError: Code.DEVICE_FAILED,
    DeviceUnusableError: Code.DEVICE_FAILED,
    EngineFullError: Code.DEVICE_FAILED,
    SignatureToolMissingError: Code.INTERNAL,
    SignatureProbeError: Code.DEVICE_FAILED,
}  # fmt: skip

_DIRECT = {"auto": None, "always": True, "never": False}


class ConfiguredOpener:
    """Implements `DeviceOpener` for local files and block devices, and for remote exports."""

    def __init__(self, config: HostConfig, engine: Engine) -> None:
        """Open what the host's config allows, over one engine."""
        self._allowed = AllowedPaths(config.allowed_devices)
        self._remote = RemoteExports(self._allowed)
        self._engine = engine
        self._direct = _DIRECT[config.direct_io]

    async def open_pair(
        self, source: str, target: str, *, overwrite_target: bool
    ) -> tuple[Device, Device, DevicePair]:
        """See `DeviceOpener`."""
        for uri, side in ((source, "source"), (target, "target")):
            _refuse_miswritten(uri, side)
        if await _is_same(source, target):
            raise Refusal(
                Code.SAME_DEVICE, f"{source} and {target} are the same device; a migration needs two."
            )
        source_device = await self._open(source, "source")
        try:
            target_device = await self._open(target, "target")
            try:
                _check_match(source_device, target_device)
                if not overwrite_target:
                    await _check_unused(target_device)
            except BaseException:
                await target_device.close()
                raise
        except BaseException:
            await source_device.close()
            raise
        devices = DevicePair(source=source_device.identity, target=target_device.identity)
        return source_device, target_device, devices

    async def open_recorded(self, identity: DeviceIdentity, *, is_target: bool) -> Device:
        """See `DeviceOpener`."""
        side = "target" if is_target else "source"
        device = await self._open(identity.name, side)
        if not device.is_recorded_as(identity):
            await device.close()
            raise Refusal(
                Code.DEVICE_CHANGED,
                f"The {side} {identity.name} is not the device that was set up: it was {_told(identity)} "
                f"and is {_told(device.identity)} now. Bring the old one back under this name.",
            )
        return device

    def alignment_bytes(self, identity: DeviceIdentity) -> int:
        """See `DeviceOpener`. Any offset will do where I/O goes through the page cache."""
        is_direct = self._direct if self._direct is not None else identity.kind is DeviceKind.BLOCK
        return identity.logical_sector_bytes if is_direct or identity.kind is DeviceKind.REMOTE else 1

    async def written_ns(self, identity: DeviceIdentity) -> int:
        """See `DeviceOpener`."""
        if identity.kind is not DeviceKind.FILE:
            return NO_FILE_NS
        try:
            return max(await written_ns(identity.name), UNKNOWN_NS)
        except DeviceOperatingError:
            return UNKNOWN_NS

    async def check_name(self, identity: DeviceIdentity) -> None:
        """See `DeviceOpener`. A remote export is found by its name alone, so the name still leads to what it led to."""
        if is_remote(identity.name):
            return
        try:
            is_there = await leads_to(identity.name, identity)
        except DeviceOperatingError as error:
            raise _refusal(f"The target cannot be looked at: {error}.", error) from error
        if not is_there:
            raise Refusal(
                Code.DEVICE_CHANGED,
                f"{identity.name} does not lead to the target any more: it was removed, renamed or replaced while it is in "
                f"use, and nobody would find it there afterwards. Bring {_told(identity)} back under this name.",
            )

    async def is_same(self, uri: str, other_uri: str) -> bool:
        """See `DeviceOpener`."""
        return await _is_same(uri, other_uri)

    async def _open(self, uri: str, side: str) -> FileDevice | RemoteDevice:
        try:
            if is_remote(uri):
                return await self._remote.open(uri)
            return await open_device(uri, allowed=self._allowed, engine=self._engine, direct=self._direct)
        except DeviceOperatingError as error:
            hint = " (host.allowed_devices)" if isinstance(error, PathNotAllowedError) else ""
            raise _refusal(f"The {side} cannot be used: {error}{hint}.", error) from error


def _refuse_miswritten(uri: str, side: str) -> None:
    """Tell what is written wrongly before anything is looked for, by the side that it is of."""
    try:
        if is_remote(uri):
            parse_remote(uri)
        else:
            local_path(uri)
    except DeviceOperatingError as error:
        raise _refusal(f"The {side} cannot be used: {error}.", error) from error


def _refusal(message: str, error: DeviceOperatingError) -> Refusal:
    return Refusal(_CODES.get(type(error), Code.DEVICE_UNSUITABLE), message)


async def _is_same(source: str, target: str) -> bool:
    try:
        if is_remote(source) and is_remote(target):
            return await same_export(source, target)
        for uri in (source, target):
            if is_remote(uri):
                parse_remote(uri)  # what is written wrongly is told before anything is looked for
        if is_remote(source) or is_remote(target):
            return False  # what a server serves, it does not tell
        return await same_device(source, target)
    except DeviceOperatingError as error:
        raise _refusal(f"The devices cannot be used: {error}.", error) from error


def _check_match(source: Device, target: Device) -> None:
    if target.size_bytes < source.size_bytes:
        raise Refusal(
            Code.TARGET_TOO_SMALL,
            f"The target {target.identity.name} has {target.size_bytes} bytes, "
            f"{source.size_bytes - target.size_bytes} less than the source's {source.size_bytes}.",
        )
    ours, theirs = target.identity.logical_sector_bytes, source.identity.logical_sector_bytes
    if ours > theirs:
        raise Refusal(
            Code.DEVICE_UNSUITABLE,
            f"The target {target.identity.name} has logical sectors of {ours} bytes, the source of {theirs}: "
            "applications may rely on the smaller ones.",
        )


async def _check_unused(target: FileDevice | RemoteDevice) -> None:
    try:
        if isinstance(target, RemoteDevice):
            signature = await find_remote_signature(target)
        else:
            signature = await find_signature(target.fd)
    except DeviceOperatingError as error:
        raise _refusal(f"The target cannot be examined: {error}.", error) from error
    if signature is not None:
        raise Refusal(
            Code.TARGET_IN_USE,
            f"The target {target.identity.name} carries {signature}; if that may be lost, say so (overwrite_target).",
        )


def _told(identity: DeviceIdentity) -> str:
    return f"{identity.token} of {identity.size_bytes} bytes"
