"""The numbers of the NBD protocol ("Values"), and the bounds that we set ourselves.

Nothing here decides anything.
"""

from enum import IntEnum, IntFlag

# "Newstyle negotiation", "Fixed newstyle negotiation"
GREETING_MAGIC = 0x4E42444D41474943  # NBDMAGIC
OPTION_MAGIC = 0x49484156454F5054  # IHAVEOPT
OPTION_REPLY_MAGIC = 0x0003E889045565A9
EXPORT_NAME_PADDING_BYTES = 124

# "Transmission"
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
REQUEST_BYTES = 28
SIMPLE_REPLY_BYTES = 16
CHUNK_HEADER_BYTES = 20

# "Conventions" bounds strings, "Size constraints" the rest.
MAX_STRING_BYTES = 4096
DEFAULT_PREFERRED_BLOCK_BYTES = 4096
LARGEST_MINIMUM_BLOCK_BYTES = 1 << 16
MAX_PAYLOAD_BYTES = 32 << 20
"""The payload that every client may count on; also the most that we take or give in one request."""

# Our own.
MAX_OPTION_BYTES = 64 << 10
"""The longest option that is read; a longer one is skipped and refused."""
MAX_STATUS_EXTENTS = 1 << 15
"""The most extents in one answer to a block status request; the document suggests at most 2^20."""

ALLOCATION_CONTEXT = "base:allocation"
REGION_CONTEXT = "cutover:region"


class HandshakeFlag(IntFlag):
    """What the server says of its handshake ("Handshake flags"); the client answers with the same bits."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """What an export can do ("Transmission flags")."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    """What a client asks for while haggling ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """How an option is answered ("Option reply types")."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_PLATFORM = (1 << 31) + 4
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7
    ERR_BLOCK_SIZE_REQD = (1 << 31) + 8
    ERR_TOO_BIG = (1 << 31) + 9


OPTION_ERROR_BIT = 1 << 31


class Info(IntEnum):
    """Facts about an export (`NBD_REP_INFO`)."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(IntEnum):
    """What a client asks for in transmission ("Request types")."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """How it is to be done ("Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ChunkType(IntEnum):
    """The parts of a structured reply ("Structured reply types")."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_ERROR_BIT = 1 << 15
CHUNK_DONE = 1 << 0


class AllocationStatus(IntFlag):
    """What `base:allocation` says of an extent."""

    HOLE = 1 << 0
    ZERO = 1 << 1


class NbdError(IntEnum):
    """The errors that the wire knows ("Error values"); the only ones that we send."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108
