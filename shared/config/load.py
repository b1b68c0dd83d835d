"""Reads the configuration: one TOML file, and the environment over it. All mistakes are reported together, by key.

`CUTOVER_NATS_URL` is `nats.url`, `CUTOVER_HOST_STATE_DIR` is `host.state_dir`, and so on for every key. A value is
written as in TOML; where a string is wanted the bare text does, and where a list is, a comma between its parts.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import orjson

from shared.config.exposure import exposure_mistakes, page_mistakes
from shared.config.model import Config, HostConfig, LogConfig, MonitoringConfig, NatsConfig, NbdConfig
from shared.strict import Mistakes, read_json

_PREFIX = "CUTOVER_"
_SECTIONS: Mapping[str, type] = {
    "nats": NatsConfig,
    "host": HostConfig,
    "nbd": NbdConfig,
    "log": LogConfig,
    "monitoring": MonitoringConfig,
}
_LISTS = frozenset({"host.allowed_devices", "nbd.listen", "monitoring.host_names"})
_STRINGS = frozenset({
    "nats.url", "nats.monitor_url", "nats.nkey_seed_file", "nats.tls_ca_file", "nats.inbox_prefix",
    "host.name", "host.state_dir", "host.io_engine", "host.direct_io",
    "nbd.tls_certificate_file", "nbd.tls_key_file", "nbd.tls_client_ca_file", "nbd.unencrypted_tcp",
    "nbd.socket_owner", "nbd.socket_group",
    "log.format", "log.level",
    "monitoring.listen", "monitoring.operator_nkey_seed_file", "monitoring.access_token_file",
    "monitoring.unencrypted_commands",
})  # fmt: skip
_FILE_BYTES_MAX = 1024 * 1024


class ConfigError(Exception):
    """The configuration cannot be used. Its text has a line for each mistake, and no secret."""


def load(file: Path | None, environment: Mapping[str, str]) -> Config:
    """Read the file, when there is one, and lay the environment over it.

    Raises:
        ConfigError: with all that is wrong.
    """
    return check(_read(file) if file else {}, file, environment)


def check(given: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> Config:
    """Lay the environment over what was read, as it is, or with more than the file had; the file is only named.

    Raises:
        ConfigError: with all that is wrong.
    """
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in given.items()}
    unknown = _lay_over(document, environment)
    try:
        config = read_json(Config, orjson.dumps(document))
    except Mistakes as mistakes:
        raise ConfigError(_text(file, (*unknown, *mistakes.sentences))) from None
    except TypeError as error:
        raise ConfigError(_text(file, (*unknown, str(error)))) from None
    if wrong := (*unknown, *exposure_mistakes(config.nbd), *page_mistakes(config.monitoring)):
        raise ConfigError(_text(file, wrong))
    return config


def load_nats(file: Path | None, environment: Mapping[str, str]) -> NatsConfig:
    """The section `[nats]` alone, for those who are no service: what else the file and the environment hold is not looked at.

    Raises:
        ConfigError: with all that is wrong.
    """
    given = _read(file).get("nats", {}) if file else {}
    prefix = environment_name("nats.")
    return check(
        {"nats": given}, file, {name: value for name, value in environment.items() if name.startswith(prefix)}
    ).nats


def known_keys() -> tuple[str, ...]:
    """Every key, as `section.key`."""
    return tuple(f"{name}.{key.name}" for name, shape in _SECTIONS.items() for key in _fields(shape))


def environment_name(key: str) -> str:
    """The variable that overrides a key: `nats.url` is `CUTOVER_NATS_URL`."""
    return _PREFIX + key.replace(".", "_").upper()


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_FILE_BYTES_MAX + 1)
        if len(content) > _FILE_BYTES_MAX:
            raise ConfigError(f"{file}: larger than {_FILE_BYTES_MAX} bytes.")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}.") from error


def _lay_over(document: dict[str, Any], environment: Mapping[str, str]) -> tuple[str, ...]:
    keys = {environment_name(key): key for key in known_keys()}
    sections = tuple(f"{_PREFIX}{section.upper()}_" for section in _SECTIONS)
    unknown = []
    for variable in sorted(environment):
        if variable in keys:
            section, _, key = keys[variable].partition(".")
            table = document.setdefault(section, {})
            if isinstance(table, dict):
                table[key] = _value(keys[variable], environment[variable])
        elif variable.startswith(sections):
            unknown.append(f"{variable}: overrides no key that there is")
    return tuple(unknown)


def _value(key: str, text: str) -> object:
    if key in _STRINGS:
        return text
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if key in _LISTS and isinstance(value, str):
        return [part for part in value.split(",") if part]
    return value


def _text(file: Path | None, sentences: tuple[str, ...]) -> str:
    where = f"{file} and the environment" if file else "the environment"
    return "\n".join((f"The configuration in {where} cannot be used:", *(f"  {each}" for each in sentences)))


def _fields(shape: type) -> tuple[Any, ...]:
    return fields(shape) if is_dataclass(shape) else ()
