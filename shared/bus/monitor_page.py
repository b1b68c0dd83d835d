"""Pages of a NATS server's monitoring endpoint, by plain HTTP."""

import asyncio
from urllib.parse import urlsplit

PAGE_TIMEOUT_S = 3.0
_ANSWER_BYTES_MAX = 4 * 1024 * 1024
_HTTP_PORT = 80


async def read_page(url: str, path: str) -> tuple[str, bytes]:
    """The status line and the body of an answer. HTTP/1.0, so that it ends with the connection.

    Raises:
        OSError, EOFError, ValueError: there is none, or it is no HTTP.
    """
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    reader, writer = await asyncio.open_connection(host, parts.port or _HTTP_PORT, limit=_ANSWER_BYTES_MAX)
    try:
        writer.write(f"GET {parts.path.rstrip('/')}{path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        await writer.drain()
        status = (await reader.readline()).decode(errors="replace").strip()
        while (await reader.readline()).strip():
            pass  # a header; the empty line ends them
        return status, await reader.read(_ANSWER_BYTES_MAX)
    finally:
        writer.close()
