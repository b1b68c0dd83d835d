"""The sockets that this host's volumes are served on: those that a parent left, those of the configuration, or one of its own.

And what is asked of those who come by TCP: TLS, with a certificate.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.write_cloning.export.errors import ExportError
from services.write_cloning.export.listener import (
    Listener,
    are_handed_down,
    inherited_listeners,
    listen_tcp,
    listen_unix,
)
from services.write_cloning.export.rights import Rights, rights_for
from services.write_cloning.export.tls import Tls
from shared.clock import Clock
from shared.config.exposure import why_exposed
from shared.config.load import ConfigError
from shared.config.model import NbdConfig
from shared.migration.refusals import Code, Refusal
from shared.tls.files import CertificateError, tls_files


def check_places(config: NbdConfig) -> None:
    """See, before anything is waited for, that there is what the configuration names for its sockets.

    Raises:
        ConfigError: there is no such account, or no such folder. Whoever starts the host again and again mends neither.
    """
    if are_handed_down(os.environ, os.getpid()):
        return  # then none is made
    try:
        rights_for(config.socket_owner, config.socket_group)
    except ExportError as error:
        raise ConfigError(f"{error}.") from None
    for address in config.listen:
        scheme, _, place = address.partition("://")
        if scheme == "unix" and not (folder := Path(place).parent).is_dir():
            raise ConfigError(f"nbd.listen: {address} cannot be listened on: there is no folder {folder}.")


def open_listeners(config: NbdConfig, usual: Path) -> list[Listener]:
    """All of them; `usual` is where one is made if none is named.

    Raises:
        Refusal: one of them cannot be had, or may not; then none is kept.
    """
    return _inherited(config) or _configured(config, usual)


@contextmanager
def tls_of(config: NbdConfig, clock: Clock) -> Iterator[Tls | None]:
    """What TCP is served with, or None: nothing, if it is served at all. The files are looked at.

    Raises:
        ConfigError: something is wrong with them.
        Refusal: nothing is but that they are not valid yet, by this machine's clock.
    """
    files = tls_files(config)
    if files is None:
        yield None
        return
    try:
        tls = Tls(files, clock)
    except CertificateError as error:
        if (
            error.is_too_early
        ):  # by a clock that is not set yet, perhaps: whoever starts us again may have more luck
            raise Refusal(Code.BAD_REQUEST, f"{error}.") from error
        raise ConfigError(f"{error}.") from error
    try:
        yield tls
    finally:
        tls.close()


def _inherited(config: NbdConfig) -> list[Listener]:
    """Those that were left (LISTEN_FDS). What the configuration says of TCP goes for them, too."""
    try:
        listeners = inherited_listeners(os.environ, os.getpid())
    except ExportError as error:
        raise Refusal(
            Code.BAD_REQUEST, f"The sockets that were left (LISTEN_FDS) are no use: {error}."
        ) from error
    why = why_exposed(config)
    exposed = [each.address for each in listeners if each.is_tcp] if why else []
    if exposed:
        _close(listeners)
        message = f"A socket that was left (LISTEN_FDS), tcp://{exposed[0]}, {why}"
        raise Refusal(Code.BAD_REQUEST, f"{message}.")
    return listeners


def _configured(config: NbdConfig, usual: Path) -> list[Listener]:
    listeners: list[Listener] = []
    address = ""
    try:
        rights = rights_for(config.socket_owner, config.socket_group)
        for address in config.listen or (f"unix://{usual}",):
            listeners.append(_listener(address, rights))
    except (ExportError, OSError) as error:
        _close(listeners)
        message = f"nbd.listen: {address} cannot be listened on: {error}" if address else str(error)
        raise Refusal(Code.BAD_REQUEST, f"{message}.") from error
    return listeners


def _listener(address: str, rights: Rights) -> Listener:
    scheme, _, place = address.partition("://")
    if scheme == "unix":
        return listen_unix(Path(place), rights)
    host, _, port = place.rpartition(":")
    return listen_tcp(host.strip("[]"), int(port))  # the configuration has checked that it is a number


def _close(listeners: list[Listener]) -> None:
    for each in listeners:
        each.close()
