"""URLs as people may see them."""

from urllib.parse import urlsplit, urlunsplit


def without_secrets(url: str) -> str:
    """The URL without user and password, for messages and logs."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
