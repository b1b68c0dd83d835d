"""From what `cutover init` was asked for to the files that it makes, and the commands that come next.

Loaded for that command alone: what certificates are made with takes longer to load than most commands run.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from services.console.certificates import general_name
from services.console.failures import usage
from services.console.installation import (
    HostPlan,
    Plan,
    files_of,
    nats_url,
)
from services.console.new_folder import clear_interrupted, open_to_others, refuse_filled, write
from services.console.output import Output
from services.console.server_file import ACCOUNT
from services.console.services_config import host_name, machine_name, patterns_of, yet_to_come
from shared.earlier_state import earlier_journals, earlier_state
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.records import Subjects

_PORT_MAX = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options, as they were given."""

    hosts: Sequence[str]
    nats_hosts: Sequence[str]
    nats_port: int
    nats_monitor: str
    nats_store: str | None
    state_dir: str
    allow: Sequence[str]
    installed_at: str | None


def install(folder: str, asked: Asked, out: Output) -> None:
    """Make the folder, and say what comes next.

    Raises:
        ConsoleError: `usage`, `not-empty` or `not-written`; then nothing was written.
    """
    if not folder:
        raise usage("DIR: '' names no folder.")
    place = Path(folder).absolute()
    clear_interrupted(place)
    refuse_filled(place)
    plan = _planned(place, asked)
    files = files_of(plan, datetime.now(UTC))
    write(place, files)
    _tell(place, plan, out)
    if warning := open_to_others(place):
        out.say(warning)
    for sentence in _earlier(plan):
        out.say(sentence)
    for sentence in filter(None, map(yet_to_come, asked.allow)):
        out.say(sentence)
    out.result(
        {
            "folder": str(place),
            "installed_at": str(plan.installed_at),
            "files": sorted(map(str, files)),
        }
    )


def _planned(place: Path, asked: Asked) -> Plan:
    store = asked.nats_store
    at = str(place) if asked.installed_at is None else asked.installed_at
    plan = Plan(
        installed_at=PurePosixPath(absolute("--installed-at", at)),
        hosts=tuple(host_plan("--host", each) for each in asked.hosts or [host_name()]),
        nats_hosts=tuple(_reachable("--nats-host", each) for each in asked.nats_hosts),
        nats_port=asked.nats_port,
        monitor=_endpoint("--nats-monitor", asked.nats_monitor),
        store=PurePosixPath(absolute("--nats-store", store)) if store is not None else None,
        state_dir=PurePosixPath(absolute("--state-dir", asked.state_dir)),
        allow=tuple(pattern for each in asked.allow for pattern in patterns_of(each)),
    )
    if len({each.name for each in plan.hosts}) != len(plan.hosts):
        raise usage("--host: one name is given twice.")
    return plan


def _tell(folder: Path, plan: Plan, out: Output) -> None:
    at = plan.installed_at
    hosts = ", ".join(each.name for each in plan.hosts)
    out.say(
        f"Made {folder}: NATS at {nats_url(plan)}, hosts {hosts}. Each role has its own key in {folder}/secrets."
    )
    out.say("Who has tls/ca-key.pem can make certificates that all of this accepts: keep it somewhere else.")
    if str(at) != str(folder):
        out.say(f"Its files belong at {at}.")
    if host_name() != machine_name() and any(each.name == host_name() for each in plan.hosts):
        out.say(
            f"This machine is called {machine_name()}, and its host {host_name()}: under systemd that takes a drop-in "
            "(docs/OPERATING.md)."
        )
    out.say("What comes next:")
    for line in next_commands(plan):
        out.say(f"  {line}")
    out.say("After a restart of NATS the second one is run again: the stream of progress is in memory alone.")


def _earlier(plan: Plan) -> Iterator[str]:
    """What an installation from before has left where this one will look, and would not find it."""
    found = [earlier_state(Path(plan.state_dir / host.name), host.name) for host in plan.hosts]
    store = plan.store or plan.installed_at / "nats/jetstream"
    journals = earlier_journals(Path(store), Subjects.STREAM, ACCOUNT)
    if not any(found) and not journals:
        return
    for each in dict.fromkeys(filter(None, found)):
        yield f"There are migrations of an earlier installation: {each}. No host starts beside them."
    for each in journals:
        yield f"There is a journal of an earlier installation in {each}, which this one does not see."
    yield "Before anything is started: docs/OPERATING.md, «From one installation to another»."


def next_commands(plan: Plan) -> list[str]:
    """The command lines that start everything, in their order, and look at it."""
    at = plan.installed_at

    def path(name: str) -> str:
        return shlex.quote(str(at / name))

    return [
        f"nats-server --config {path('nats/nats-server.conf')}",
        f"python -P -m shared.bus.bootstrap --config {path('services/bootstrap.toml')}",
        *(
            f"python -P -m services.{service} --config {path(f'services/{service}.toml')}"
            for service in ("fault_recording", "state_control", "startup")
        ),
        *(
            f"python -P -m services.write_cloning --config {path(f'hosts/{each.name}.toml')}"
            for each in plan.hosts
        ),
        f"python -P -m services.monitoring --config {path('services/monitoring.toml')}",
        f"CUTOVER_CONFIG={path('operator.toml')} cutover list",
        f"nats --server {nats_url(plan)} --nkey {path('secrets/operator.nk')} --tlsca {path('tls/ca.pem')} micro ls",
    ]


def host_plan(option: str, text: str) -> HostPlan:
    """A host as it is written: its name, and what it is reached under.

    Raises:
        ConsoleError: `usage`.
    """
    name, _, addresses = text.partition("=")
    if not is_valid_name(name):
        raise usage(f"{option}: {name!r} cannot name a host: {NAME_RULE}.")
    reached = tuple(_reachable(option, each) for each in addresses.split(",") if each)
    return HostPlan(name=name, addresses=reached)


def _reachable(option: str, text: str) -> str:
    try:
        general_name(text)
    except ValueError as error:
        raise usage(f"{option}: {error}.") from None
    return text


def _endpoint(option: str, text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _PORT_MAX) or not host:
        raise usage(f"{option}: {text!r} is no ADDRESS:PORT.")
    _reachable(option, host)
    return text


def absolute(option: str, text: str) -> str:
    """A path that holds wherever the command is run.

    Raises:
        ConsoleError: `usage`.
    """
    if not text.startswith("/"):
        raise usage(f"{option}: {text!r} is no absolute path.")
    return text
