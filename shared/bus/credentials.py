"""Who we are to the NATS server, and whom we take for it: a key from a file, and the authority of its certificate.

The files are read when a connection is begun, once. What is wrong with one is told by the key of the configuration and
the file, with what would do; what stands in it is told nobody.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shared.config.load import ConfigError
from shared.config.model import NatsConfig

if TYPE_CHECKING:
    from shared.bus.nkeys import KeyPair

_FILE_BYTES_MAX = 64 * 1024
_SEED_ALLOWED = "allowed is a file with the seed of a NATS user's nkey (SU…) and nothing else"
Used = TypeVar("Used")

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_CA_ALLOWED = "allowed is a file with certificates in PEM"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connection is made with. `who` names the user for people: by the file, for a key says nothing to them."""

    who: str
    key: "KeyPair | None" = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_credentials(config: NatsConfig) -> Credentials:
    """Read what the configuration names.

    Raises:
        ConfigError: a file is missing, cannot be read, or does not hold what it has to.
    """
    tls = _authority(config.tls_ca_file) if config.tls_ca_file else None
    if tls is None and config.demands_tls:
        tls = ssl.create_default_context()
    if config.nkey_seed_file is None:
        return Credentials(
            "whoever the URL names" if "@" in config.url else "somebody without credentials", tls=tls
        )
    return Credentials(f"the user of {config.nkey_seed_file}", _key(config.nkey_seed_file), tls)


def _key(file: str) -> "KeyPair":
    # Only here: who has no key need not wait for what keys are read with.
    from shared.bus.nkeys import MalformedSeed, key_pair  # noqa: PLC0415

    text = _content("nats.nkey_seed_file", file, _SEED_ALLOWED)
    try:
        return key_pair(text.strip())
    except MalformedSeed as malformed:
        raise _wrong("nats.nkey_seed_file", file, f"holds no seed: {malformed}", _SEED_ALLOWED) from None


def learn_authorities(tls: ssl.SSLContext, file: str) -> None:
    """Accept what authorities `nats.tls_ca_file` has by now, besides those that it had before. Blocks.

    Raises:
        ConfigError: it is missing, cannot be read, or holds no certificate.
    """
    _with_authorities(file, lambda text: tls.load_verify_locations(cadata=text))


def _authority(file: str) -> ssl.SSLContext:
    return _with_authorities(file, lambda text: ssl.create_default_context(cadata=text))


def _with_authorities(file: str, use: Callable[[str], Used]) -> Used:
    text = _content("nats.tls_ca_file", file, _CA_ALLOWED)
    try:
        if _CERTIFICATE not in text:  # of nothing, Python would make this machine's own authorities
            raise ValueError(_CERTIFICATE)
        return use(text)
    except (ssl.SSLError, ValueError):
        raise _wrong("nats.tls_ca_file", file, "holds no certificate", _CA_ALLOWED) from None


def _content(key: str, file: str, allowed: str) -> str:
    try:
        with Path(file).open(encoding="ascii") as opened:
            text = opened.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _wrong(key, file, f"cannot be read: {error.strerror}", allowed) from None
    except UnicodeDecodeError:
        raise _wrong(key, file, "holds something else than text", allowed) from None
    if len(text) > _FILE_BYTES_MAX:
        raise _wrong(key, file, f"is larger than {_FILE_BYTES_MAX} bytes", allowed)
    return text


def _wrong(key: str, file: str, what: str, allowed: str) -> ConfigError:
    return ConfigError(f"{key}: {file} {what}; {allowed}.")
