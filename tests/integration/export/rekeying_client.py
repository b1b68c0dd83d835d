"""A client that asks for new keys, as OpenSSL lets it and Python does not. It blocks: use it in a thread."""

import ctypes
import socket
import struct
from pathlib import Path

from tests.integration.export.tls_client import ACKNOWLEDGED, CLIENT_FLAGS, GREETING_BYTES, STARTTLS

KEY_UPDATE_REQUESTED = 1  # ours are new, and the server's shall be, too
PEM = 1


class RekeyingClient:
    """One that has chosen the export `v`, without structured replies."""

    def __init__(self, port: int, folder: Path, receive_buffer_bytes: int | None = None) -> None:
        self.connection = socket.socket()
        if receive_buffer_bytes is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.connect(("127.0.0.1", port))
        self.connection.sendall(CLIENT_FLAGS + STARTTLS)
        assert self.connection.recv(GREETING_BYTES + 20, socket.MSG_WAITALL)[GREETING_BYTES:] == ACKNOWLEDGED
        self._library = _library()
        self._context = self._library.SSL_CTX_new(self._library.TLS_client_method())
        for use, name in (("certificate", "client-cert.pem"), ("PrivateKey", "client-key.pem")):
            loaded = getattr(self._library, f"SSL_CTX_use_{use}_file")(
                self._context, bytes(folder / name), PEM
            )
            assert loaded == 1
        self._ssl = self._library.SSL_new(self._context)
        assert self._library.SSL_set_fd(self._ssl, self.connection.fileno()) == 1
        assert self._library.SSL_connect(self._ssl) == 1
        assert self.send(struct.pack(">8sII1s", b"IHAVEOPT", 1, 1, b"v"))
        self.receive(10)

    def ask_for_new_keys(self) -> None:
        """Before the next bytes."""
        assert self._library.SSL_key_update(self._ssl, KEY_UPDATE_REQUESTED) == 1

    def send(self, data: bytes) -> bool:
        """False: the server has hung up."""
        return int(self._library.SSL_write(self._ssl, data, len(data))) == len(data)

    def receive(self, length: int) -> bytes:
        received = b""
        buffer = ctypes.create_string_buffer(length)
        while len(received) < length:
            count = self._library.SSL_read(self._ssl, buffer, length - len(received))
            assert count > 0, "the server has hung up"
            received += buffer.raw[:count]
        return received

    def close(self) -> None:
        self.connection.close()
        self._library.SSL_free(self._ssl)
        self._library.SSL_CTX_free(self._context)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libssl.so.3")
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("SSL_CTX_new", "SSL_new", "SSL_connect", "SSL_free", "SSL_CTX_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.SSL_CTX_use_certificate_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.SSL_CTX_use_PrivateKey_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.SSL_set_fd.argtypes = library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.SSL_read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    return library
