"""What may go wrong with an export on the operating side; what a client does wrong is in `shared.nbd.errors`."""


class ExportError(Exception):
    """Something about an export or a listening socket cannot be had; `code` is stable, the text is for people."""

    code = "export"


class SocketPathError(ExportError):
    """The path of a Unix socket will not do."""

    code = "socket-path"


class SocketInUseError(ExportError):
    """Somebody listens there already."""

    code = "socket-in-use"


class AddressError(ExportError):
    """What was given is no address that this host has."""

    code = "address"


class ActivationError(ExportError):
    """Inherited sockets that cannot be used."""

    code = "socket-activation"


class ExportNameError(ExportError):
    """The name is taken, or not there."""

    code = "export-name"


class ExportPoolError(ExportError):
    """The memory for an export's payloads cannot serve its connections."""

    code = "export-pool"


class SocketRightsError(ExportError):
    """A Unix socket cannot be given to whom it is meant for."""

    code = "socket-rights"
