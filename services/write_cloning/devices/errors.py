"""What can go wrong with devices, in two families.

*Operating*: the world is not as it should be (a missing file, a busy disk); such an error carries a stable
`code` and a sentence that names the thing. *Invariant*: this program is wrong; whoever sees one stops the
volume. The third family of the house, *peer*, does not exist here: devices talk to no client. Errors of
single requests are no exceptions at all but errno values given to `done`.
"""


class DeviceError(Exception):
    """Whatever devices raise."""


class DeviceOperatingError(DeviceError):
    """A device could not be opened or asked. `code` is stable, for machines; the text is for people."""

    code = "device-error"


class DeviceInvariantError(DeviceError):
    """This program broke a rule of its own; nothing that it holds about the device can be relied on."""


class BufferMisuseError(DeviceInvariantError):
    """A buffer was released or retained by someone who did not hold it."""


class EngineMisuseError(DeviceInvariantError):
    """An engine was used after it was closed, or closed while it was needed."""


class PoolExhaustedError(DeviceOperatingError):
    """The buffer pool's budget has no room for the request; back-pressure should have come first."""

    code = "buffers-exhausted"


class EngineFullError(DeviceOperatingError):
    """As many devices are open as the engine has lanes."""

    code = "too-many-devices"


class EngineUnavailableError(DeviceOperatingError):
    """The kernel, or the container around us, does not allow an engine."""

    code = "engine-unavailable"


class DeviceRefusedError(DeviceOperatingError):
    """A device was not opened. Nothing is left open and no lock is held."""

    code = "device-refused"


class UriNotSupportedError(DeviceRefusedError):
    """No device is meant, or the URI is not written as it must be."""

    code = "uri-not-supported"


class PathNotAbsoluteError(DeviceRefusedError):
    """A relative path means something else to every process."""

    code = "path-not-absolute"


class PathNotAllowedError(DeviceRefusedError):
    """The host's config does not list the path."""

    code = "path-not-allowed"


class DeviceMissingError(DeviceRefusedError):
    """There is nothing at the path."""

    code = "device-missing"


class NotADeviceError(DeviceRefusedError):
    """Neither a regular file nor a block device."""

    code = "not-a-device"


class DeviceBusyError(DeviceRefusedError):
    """Someone else uses it."""

    code = "device-busy"


class DeviceReadOnlyError(DeviceRefusedError):
    """It cannot be written."""

    code = "device-read-only"


class DeviceForbiddenError(DeviceRefusedError):
    """The operating system does not let this process open it."""

    code = "device-forbidden"


class DeviceEmptyError(DeviceRefusedError):
    """Its size is zero."""

    code = "device-empty"


class DeviceSizeError(DeviceRefusedError):
    """Its size is not a whole number of blocks."""

    code = "device-size"


class DirectIoError(DeviceRefusedError):
    """Direct I/O was asked for where there is none."""

    code = "direct-io-unsupported"


class DeviceHangsError(DeviceRefusedError):
    """It did not answer in time."""

    code = "device-hangs"


class NoFlushError(DeviceRefusedError):
    """A server cannot say that anything is durable."""

    code = "no-flush"


class DeviceUnusableError(DeviceRefusedError):
    """Opening it failed for a reason that has no name of its own."""

    code = "device-unusable"


class SignatureToolMissingError(DeviceOperatingError):
    """There is no `blkid`."""

    code = "blkid-missing"


class SignatureProbeError(DeviceOperatingError):
    """`blkid` could not say what is on the device."""

    code = "signature-unknown"
