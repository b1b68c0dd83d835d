"""A peer that has reset the connection while there was still something to read.

uvloop watches such a socket no more: libuv stops at POLLERR, the reader is called once and never again, and what it reads is
data. So whoever reads by `add_reader` asks after each reading, or it would wait for ever for a peer that is gone.
"""

import os
import socket


def raise_if_reset(connection: socket.socket) -> None:
    """Raise what the peer has left as an error of the socket, if it has.

    Raises:
        OSError: the connection is broken, whatever could still be read from it.
    """
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
