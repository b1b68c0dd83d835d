"""The configuration that `cutover up` runs the services with: the operator's file, and what it lacks."""

import glob
import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from services.console.failures import ConsoleError, usage
from services.console.named_nats import CONFIG_VARIABLE
from services.console.state_directory import StateDirectory
from shared.config.load import ConfigError, check, environment_name, load
from shared.config.model import Config
from shared.migration.names import NAME_LENGTH_MAX

Document = dict[str, dict[str, Any]]


def read_document(file: Path | None) -> Document:
    """The operator's file as it stands; its values are checked later, as a whole.

    Raises:
        ConsoleError: it cannot be read, or is no TOML with sections.
    """
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise usage(f"{file} is not TOML: {error}.") from None
    loose = [key for key, value in document.items() if not isinstance(value, dict)]
    if loose:
        raise usage(f"{file}: {', '.join(loose)} stands in no section.")
    return document


def names_nats(document: Document, environment: Mapping[str, str]) -> bool:
    """Whether a NATS server of the operator's is to be used; otherwise `up` starts its own."""
    return environment_name("nats.url") in environment or "url" in document.get("nats", {})


def refuse_file_of_a_role(named: Path | None, environment: Mapping[str, str]) -> None:
    """Refuse a file that holds the key of one role: as `cutover init` writes them, for one service or for the operator.

    Each service needs its own key, so with one file all of them would be refused by NATS. A file of CUTOVER_CONFIG is not
    what `up` runs with; but who has set it means that installation, and not a NATS of our own beside it.

    Raises:
        ConsoleError: (`usage`) saying which file, and what to do.
    """
    file = named or (Path(given) if (given := environment.get(CONFIG_VARIABLE)) else None)
    if file is None or "nkey_seed_file" not in read_document(file).get("nats", {}):
        return
    where = "--config" if named else CONFIG_VARIABLE
    instead = "give --config a file without one" if named else f"unset {CONFIG_VARIABLE}"
    raise usage(
        f"{where}: {file} has the key of one role (nats.nkey_seed_file), and `up` runs all services. In that installation start "
        "each service with its own file; `cutover doctor` says which ones are missing. To try Cutover out beside it, "
        f"{instead}."
    )


def filled_in(document: Document, directory: StateDirectory, allow: Sequence[str]) -> Document:
    """The document with a host, a place for its state, a socket, and the devices that `--allow` adds."""
    host = {"name": host_name(), "state_dir": str(directory.host)} | document.get("host", {})
    allowed = [
        *host.get("allowed_devices", []),
        *(pattern for each in allow for pattern in patterns_of(each)),
    ]
    nbd = {"listen": [f"unix://{directory.socket}"]} | document.get("nbd", {})
    return document | {"host": host | {"allowed_devices": allowed}, "nbd": nbd}


def patterns_of(allowed: str) -> list[str]:
    """The patterns that one `--allow` means: itself, as of a URI; of a folder, what lies in it; of a link, also what it leads to.

    What ends with a slash is a folder, also where it is not there yet. The host compares the path that a device really has,
    links resolved, so that no link can be swapped in between.

    Raises:
        ConsoleError: (`usage`) it names nothing, as a variable of the shell that is not set; or it is no folder, and ends as one.
    """
    if not allowed:
        raise usage("--allow: '' names no device; it takes a path, a pattern, or a folder.")
    if "://" in allowed:  # a remote export's; the configuration is checked as a whole
        export, is_socket, socket_path = allowed.partition("?socket=")
        return sorted(
            {allowed, export + is_socket + os.path.realpath(socket_path)} if is_socket else {allowed}
        )
    path = os.path.abspath(allowed)  # noqa: PTH100 - makes no link and no pattern of it anything else
    is_of_folder = allowed.endswith("/")
    if not Path(path).exists():
        return [f"{path.rstrip('/')}/*" if is_of_folder else path]
    if is_of_folder and not Path(path).is_dir():
        raise usage(f"--allow: {allowed!r} is no folder, as the slash at its end says.")
    real = sorted({glob.escape(path), glob.escape(os.path.realpath(path))})
    return [f"{each.rstrip('/')}/*" for each in real] if Path(path).is_dir() else real


def yet_to_come(allowed: str) -> str:
    """What one `--allow` will let in, as a sentence, where it names one thing that is not here; empty for any other."""
    if "://" in allowed or glob.has_magic(allowed) or Path(allowed).exists():
        return ""
    if allowed.endswith("/"):
        return f"--allow {allowed}: there is no such folder here yet; devices may be opened that lie directly in it."
    return (
        f"--allow {allowed}: nothing of that name is here yet; a device may be opened that has exactly that name, and nothing "
        f"in a folder of that name: --allow {allowed}/ would let that in."
    )


def machine_name() -> str:
    """The short name that this machine goes by."""
    return socket.gethostname().partition(".")[0]


def host_name() -> str:
    """This machine's name, as far as a host's name may look like it."""
    name = re.sub(r"[^a-z0-9-]+", "-", machine_name().lower()).strip("-")
    return name[:NAME_LENGTH_MAX] or "local"


def check_document(
    document: Document, file: Path | None, directory: StateDirectory, environment: Mapping[str, str]
) -> None:
    """See, before anything is made, that the services can read it and can listen where it says.

    Raises:
        ConsoleError: (`usage`) with all that is wrong, under the name of the operator's file.
    """
    try:
        config = check(document, file, environment)
    except ConfigError as error:
        raise usage(one_line(error)) from None
    for address in config.nbd.listen:
        scheme, _, place = address.partition("://")
        if scheme == "unix" and Path(place) != directory.socket and not Path(place).parent.is_dir():
            raise usage(
                f"nbd.listen: {address} cannot be listened on: there is no folder {Path(place).parent}."
            )


def write_config(document: Document, directory: StateDirectory, environment: Mapping[str, str]) -> Config:
    """Write the file that the services read, and read it as they will.

    Raises:
        ConsoleError: (`usage`) something in it, or in the environment, is wrong.
    """
    directory.config.touch(mode=0o600)
    directory.config.write_text(toml_text(document))
    try:
        return load(directory.config, environment)
    except ConfigError as error:
        raise usage(one_line(error)) from None


def one_line(error: ConfigError) -> str:
    """All mistakes of a configuration as one sentence."""
    first, *mistakes = str(error).splitlines()
    if not mistakes:
        return first
    return f"{first} {'; '.join(mistake.strip() for mistake in mistakes)}."


def toml_text(document: Document) -> str:
    """A document of sections with plain values and lists of them, as TOML."""
    lines = [
        "# Written by `cutover up`, anew at every start: the file given with --config, and what was missing in it."
    ]
    for section, values in document.items():
        lines.append(f"\n[{_key(section)}]")
        lines.extend(f"{_key(key)} = {_value(key, value)}" for key, value in values.items())
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return orjson.dumps(name).decode()


def _value(key: str, value: object) -> str:
    # What JSON and TOML write alike: strings without control characters but escaped ones, numbers, booleans, lists.
    if isinstance(value, (str, bool, int, float)):
        return orjson.dumps(value).decode()
    if isinstance(value, list) and all(isinstance(part, (str, bool, int, float)) for part in value):
        return f"[{', '.join(_value(key, part) for part in value)}]"
    raise ConsoleError("usage", f"{key} has a value that no setting takes: {value!r}.")
