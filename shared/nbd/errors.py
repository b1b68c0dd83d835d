"""What a peer may do wrong, in two kinds, and errno as the wire tells it.

An *answerable* error is refused with a code and a sentence, and the connection goes on; a *fatal* one leaves the stream
or the agreement unusable, so that all that is left is to hang up. Errors of devices are no business of this file: they
arrive here as an errno.
"""

import errno

from shared.nbd.constants import NbdError, OptionReply


class NbdPeerError(Exception):
    """The other side broke the protocol."""


class FatalPeerError(NbdPeerError):
    """The stream can no longer be understood, or the protocol demands a hang-up: disconnect."""


class OptionRefusedError(NbdPeerError):
    """An option that is answered with an error; haggling goes on."""

    def __init__(self, reply: OptionReply, sentence: str) -> None:
        super().__init__(sentence)
        self.reply = reply
        self.sentence = sentence


class NegotiationFailedError(NbdPeerError):
    """The server understood us and said no (seen by a client)."""

    def __init__(self, reply: int, sentence: str) -> None:
        super().__init__(sentence)
        self.reply = reply


# "Error values": EDQUOT and EFBIG are told as ENOSPC; what has no name on the wire is EIO, except that a refusal for
# lack of permission is EPERM and a malformed request EINVAL.
_TOLD_AS = {
    errno.EPERM: NbdError.EPERM,
    errno.EACCES: NbdError.EPERM,
    errno.EROFS: NbdError.EPERM,
    errno.EIO: NbdError.EIO,
    errno.ENOMEM: NbdError.ENOMEM,
    errno.EINVAL: NbdError.EINVAL,
    errno.ENOSPC: NbdError.ENOSPC,
    errno.EDQUOT: NbdError.ENOSPC,
    errno.EFBIG: NbdError.ENOSPC,
    errno.EOPNOTSUPP: NbdError.ENOTSUP,
    errno.ESHUTDOWN: NbdError.ESHUTDOWN,
}


def wire_error(error: int, *, may_be_unsupported: bool = False) -> int:
    """The NBD error for a positive errno; never 0.

    ENOTSUP is reserved for fast zeroes that would not be fast (`NBD_CMD_WRITE_ZEROES`); anything else that is not
    supported is told as EINVAL.
    """
    told = _TOLD_AS.get(error, NbdError.EIO)
    if told is NbdError.ENOTSUP and not may_be_unsupported:
        return int(NbdError.EINVAL)
    return int(told)


_ERRNO_OF: dict[int, int] = {
    NbdError.EPERM: errno.EPERM,
    NbdError.EIO: errno.EIO,
    NbdError.ENOMEM: errno.ENOMEM,
    NbdError.EINVAL: errno.EINVAL,
    NbdError.ENOSPC: errno.ENOSPC,
    NbdError.EOVERFLOW: errno.EOVERFLOW,
    NbdError.ENOTSUP: errno.EOPNOTSUPP,
    NbdError.ESHUTDOWN: errno.ESHUTDOWN,
}


def errno_of(error: int) -> int:
    """The errno for an error that a server sent; unknown values count as EINVAL ("Error values"). Never 0."""
    return _ERRNO_OF.get(error, errno.EINVAL)
