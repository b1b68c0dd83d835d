"""Where volumes may be exported, as far as an address's text tells: a Unix socket, or TCP on an address of this host.

Who could reach it there, and whether that is wanted, is in `exposure`.
"""

import ipaddress

UNIX_PATH_BYTES_MAX = 107  # `sun_path` without its NUL (unix(7))
PORT_MAX = 65535
_ALLOWED = (
    "allowed are unix:///FOLDER/NAME and tcp://ADDRESS:PORT, as in tcp://192.0.2.1:10809 or tcp://[::1]:10809"
)


def an_nbd_address(value: str) -> str:
    """The address, if a socket can be opened there as far as its text tells.

    Raises:
        ValueError: it cannot; the text says why, and what can be given.
    """
    scheme, _, place = value.partition("://")
    if scheme == "unix" and place.startswith("/"):
        why = _why_no_path(place)
    elif scheme == "tcp":
        why = _why_no_endpoint(place)
    else:
        why = "begins neither with unix:/// nor with tcp://"
    if why:
        raise ValueError(f"{value!r} {why}; {_ALLOWED}")
    return value


def is_tcp(address: str) -> bool:
    """Whether an address that was accepted is one that others may reach."""
    return address.startswith("tcp://")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ADDRESS:PORT, which was accepted."""
    host = address.rpartition(":")[0].strip("[]")
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def a_page_address(value: str) -> str:
    """The address, if the page can be served there as far as its text tells.

    Raises:
        ValueError: it cannot; the text says what can be given.
    """
    host, separator, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and int(port) <= PORT_MAX
    try:
        is_host = host == "localhost" or bool(ipaddress.ip_address(bare))
    except ValueError:
        is_host = False
    if not (separator and is_port and is_host):
        raise ValueError(
            f"{value!r} is no address of a page; allowed are 127.0.0.1:PORT, [::1]:PORT and the like"
        )
    return value


def _why_no_path(path: str) -> str:
    length = len(path.encode(errors="surrogateescape"))
    if length > UNIX_PATH_BYTES_MAX:
        return f"has a path of {length} bytes, and a socket's has {UNIX_PATH_BYTES_MAX} at most"
    return ""


def _why_no_endpoint(place: str) -> str:
    host, _, port = place.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
        return "ends with no port"
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        return "names no address of this host"
    return ""
