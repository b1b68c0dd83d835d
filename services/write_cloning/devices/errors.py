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


class EngineUnavailableError(DeviceOperatingError):
    """The kernel, or the container around us, does not allow an engine."""

    code = "engine-unavailable"
