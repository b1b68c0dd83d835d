"""`cutover init` on an installation that it has made: another host, another key for a role, certificates that last longer.

Loaded for that command alone: what certificates are made with takes longer to load than most commands run.
"""

import secrets
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.console.certificates import LOOPBACK_NAMES, Authority, Issued, authorities_in, authority_of
from services.console.failures import ConsoleError, usage
from services.console.installation import (
    CA,
    CA_KEY,
    CLIENT_PAIR,
    HOSTS,
    NATS_PAIR,
    OPERATOR_FILE,
    SERVER_FILE,
    HostPlan,
    for_clients,
    for_host,
    for_nats,
    nbd_pair,
    pair,
    seed_file,
    seed_path,
)
from services.console.new_folder import SECRETS, File
from services.console.replacing import put
from services.console.server_file import with_key, with_user
from services.console.service_files import NatsPlan, host_text
from shared.bus.nkeys import KEY_BYTES, KeyPair, new_key_pair
from shared.bus.permissions import Role, cloning_role, permissions, roles
from shared.config.load import ConfigError, load_nats
from shared.config.model import NatsConfig

_STATE_DIR = PurePosixPath("/var/lib/cutover")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An installation that is there. Its files are used below `at`."""

    folder: Path
    at: PurePosixPath
    nats: NatsConfig
    hosts: tuple[str, ...]
    state_dir: PurePosixPath  # of each host, a folder in it

    @property
    def everyone(self) -> tuple[Role, ...]:
        """Its roles."""
        return roles(self.hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What was made, what has other content now, and who signed certificates among it."""

    made: tuple[PurePosixPath, ...] = ()
    changed: tuple[PurePosixPath, ...] = ()
    signed_by: Authority | None = None


def installed(folder: Path) -> Installed:
    """Read it.

    Raises:
        ConsoleError: (`not-installed`) there is none.
    """
    try:
        nats = load_nats(folder / OPERATOR_FILE, {})
        (folder / SERVER_FILE).stat()
        hosts = sorted(file.stem for file in (folder / HOSTS).iterdir() if file.suffix == ".toml")
        state_dir = _state_dir(folder / HOSTS / f"{hosts[0]}.toml") if hosts else _STATE_DIR
    except (ConfigError, OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _not_installed(folder, str(error)) from error
    if nats.nkey_seed_file is None:
        raise _not_installed(folder, f"{OPERATOR_FILE} names no nats.nkey_seed_file")
    at = PurePosixPath(nats.nkey_seed_file).parent.parent
    return Installed(folder=folder, at=at, nats=nats, hosts=tuple(hosts), state_dir=state_dir)


def authority(here: Installed, key_file: Path | None) -> Authority:
    """What signs certificates there: its key is in the folder, or where it is kept.

    Where several are accepted, the key has to be named: the one in the folder may be of the one that is to go.

    Raises:
        ConsoleError: `no-authority`.
    """
    file = key_file or here.folder / CA_KEY
    try:
        accepted = (here.folder / CA).read_bytes()
        if key_file is None and len(several := authorities_in(accepted)) > 1:
            raise ConsoleError(
                "no-authority",
                f"{here.folder / CA} holds several authorities: {'; '.join(several)}. Name the key of the one that is to "
                "sign with --ca-key; nothing was written.",
            )
        return authority_of(accepted, file.read_bytes())
    except FileNotFoundError as error:
        raise ConsoleError(
            "no-authority",
            f"{error.filename} is not there, and nothing else signs certificates of this installation: name the place "
            "where it is kept with --ca-key; nothing was written.",
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise ConsoleError(
            "no-authority", f"{file} cannot sign for {here.folder / CA}: {error}; nothing was written."
        ) from error


def add_host(
    here: Installed,
    host: HostPlan,
    signs: Authority,
    now: datetime,
    *,
    allow: Sequence[str] = (),
    state_dir: PurePosixPath | None = None,
) -> Changed:
    """Another host: its key, its user in the server's file, certificates and a configuration.

    Raises:
        ConsoleError: `not-empty` where it is there already; `not-as-written`; `not-written`. Then nothing is changed.
    """
    if host.name in here.hosts:
        raise ConsoleError("not-empty", f"Host {host.name} is there already; nothing was written.")
    key = _new_key()
    everyone = roles([*here.hosts, host.name])
    role = next(each for each in everyone if each.name == cloning_role(host.name))
    nats = NatsPlan(
        url=here.nats.url, monitor_url=here.nats.monitor_url or "", folder=here.at, secrets=SECRETS
    )
    text = host_text(nats, role, host.name, state_dir or here.state_dir, allow)
    made = {
        seed_path(role.name): seed_file(key),
        **pair(*nbd_pair(host.name), for_host(signs, host, now)),
        HOSTS / f"{host.name}.toml": File(text.encode()),
    }
    server = _server(here, lambda text: with_user(text, role, permissions(role, everyone), key.public_key))
    put(here.folder, made, {SERVER_FILE: server})
    return Changed(made=tuple(made), changed=(SERVER_FILE,), signed_by=signs)


def new_key(here: Installed, role: str) -> Changed:
    """Another key for a role.

    Raises:
        ConsoleError: `usage`; `not-as-written`; `not-written`. Then nothing is changed.
    """
    names = [each.name for each in here.everyone]
    if role not in names:
        raise usage(f"--new-key: there is no role {role!r}; there are {', '.join(names)}.")
    key = _new_key()
    path, file = seed_path(role), seed_file(key)
    server = _server(here, lambda text: with_key(text, role, key.public_key))
    # The server's last: with a key that nobody has yet, what runs could not go on after a reload.
    return _put(here.folder, {path: file, SERVER_FILE: File(server)})


def renew(here: Installed, signs: Authority, now: datetime) -> Changed:
    """All certificates anew but the authority's, for the same names and keys; a pair anew where it is not whole.

    Raises:
        ConsoleError: `not-written`. Then nothing is changed.
    """
    nats_name = urlsplit(here.nats.url).hostname or LOOPBACK_NAMES[0]
    anew: list[tuple[tuple[PurePosixPath, PurePosixPath], Issued]] = [
        (NATS_PAIR, for_nats(signs, [nats_name], now)),
        (CLIENT_PAIR, for_clients(signs, now)),
        *((nbd_pair(host), for_host(signs, HostPlan(name=host), now)) for host in here.hosts),
    ]
    files: dict[PurePosixPath, File] = {}
    for (certificate, key), issued in anew:
        try:
            content = _renewed(here.folder, certificate, key, signs, now)
        except OSError as error:
            raise ConsoleError(
                "not-written", f"{error.filename} cannot be read: {error.strerror}; nothing was changed."
            ) from error
        files |= pair(certificate, key, issued) if content is None else {certificate: File(content)}
    return replace(_put(here.folder, files | _clients_authority(here.folder)), signed_by=signs)


def _clients_authority(folder: Path) -> dict[PurePosixPath, File]:
    """What clients accept, where that is not what everyone accepts by now."""
    path = CLIENT_PAIR[0].with_name("ca-cert.pem")
    try:
        authorities = (folder / CA).read_bytes()
        has_them = (folder / path).exists() and (folder / path).read_bytes() == authorities
    except OSError as error:
        raise ConsoleError(
            "not-written", f"{error.filename} cannot be read: {error.strerror}; nothing was changed."
        ) from error
    return {} if has_them else {path: File(authorities)}


def _put(folder: Path, files: Mapping[PurePosixPath, File]) -> Changed:
    """Make those that are missing, then change the others, each in this order."""
    made = {path: file for path, file in files.items() if not (folder / path).exists()}
    changed = {path: file.content for path, file in files.items() if path not in made}
    put(folder, made, changed)
    return Changed(made=tuple(made), changed=tuple(changed))


def _renewed(
    folder: Path, certificate: PurePosixPath, key: PurePosixPath, signs: Authority, now: datetime
) -> bytes | None:
    """The certificate anew; None where it or its key is missing or no use, or they do not belong to each other."""
    try:
        old = x509.load_pem_x509_certificate((folder / certificate).read_bytes())
        private = load_pem_private_key((folder / key).read_bytes(), None)
        return signs.renewed(old, now) if private.public_key() == old.public_key() else None
    except (FileNotFoundError, TypeError, ValueError):
        return None


def _server(here: Installed, edit: Callable[[str], str]) -> bytes:
    file = here.folder / SERVER_FILE
    try:
        return edit(file.read_text(encoding="utf-8")).encode()
    except (OSError, ValueError) as error:
        raise ConsoleError(
            "not-as-written",
            f"{file} is not as `cutover init` wrote it: {error}. Change it by hand (docs/SECURITY.md); nothing was written.",
        ) from error


def _state_dir(file: Path) -> PurePosixPath:
    told = tomllib.loads(file.read_text(encoding="utf-8")).get("host", {}).get("state_dir")
    return PurePosixPath(told).parent if isinstance(told, str) and told.startswith("/") else _STATE_DIR


def _new_key() -> KeyPair:
    return new_key_pair(secrets.token_bytes(KEY_BYTES))


def _not_installed(folder: Path, why: str) -> ConsoleError:
    return ConsoleError(
        "not-installed",
        f"{folder} holds no installation that `cutover init` made: {why}; nothing was written.",
    )
