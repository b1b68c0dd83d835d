"""From what `cutover init` was asked for of an installation that is there, to what it changes and what comes next.

Loaded for that command alone: what certificates are made with takes longer to load than most commands run.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from services.console.certificates import LOOPBACK_NAMES
from services.console.extending import Changed, Installed, add_host, authority, installed, new_key, renew
from services.console.failures import usage
from services.console.installation import CA, HOSTS, NATS_PAIR, HostPlan, nbd_pair, seed_path
from services.console.installing import absolute, host_plan
from services.console.output import Output
from services.console.services_config import patterns_of, yet_to_come
from shared.bus.permissions import cloning_role

_RELOAD = (
    "have the NATS server read its file again: `systemctl reload cutover-nats`, `docker compose kill --signal HUP nats`, or "
    "SIGHUP to its process"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options, as they were given: one of the first three."""

    add_host: str | None = None
    new_key: str | None = None
    renew: bool = False
    ca_key: str | None = None
    state_dir: str | None = None
    allow: Sequence[str] = ()


def change(folder: str, wanted: Wanted, out: Output) -> None:
    """Change the installation, and say what comes next.

    Raises:
        ConsoleError: whatever it was refused for; then nothing is changed.
    """
    if not folder:
        raise usage("DIR: '' names no folder.")
    here = installed(Path(folder).absolute())
    now = datetime.now(UTC)
    if wanted.add_host is not None:
        changed = _add_host(here, host_plan("--add-host", wanted.add_host), wanted, now, out)
    elif wanted.new_key is not None:
        changed = new_key(here, wanted.new_key)
        _tell_key(here, wanted.new_key, out)
    else:
        changed = renew(here, authority(here, _key_file(wanted)), now)
        _tell_renewed(here, changed, out)
    out.result({
        "folder": str(here.folder),
        "installed_at": str(here.at),
        "files": sorted(map(str, changed.made)),
        "changed": sorted(map(str, changed.changed)),
        **_signed_by(changed),
    })  # fmt: skip


def _signed_by(changed: Changed) -> dict[str, object]:
    signs = changed.signed_by
    if signs is None:
        return {}
    return {"signed_by": {"subject": signs.subject, "not_after": f"{signs.not_after:%Y-%m-%dT%H:%M:%SZ}"}}


def _tell_signed_by(changed: Changed, out: Output) -> None:
    if (signs := changed.signed_by) is not None:
        out.say(f"Signed by {signs.subject}, which is good until {signs.not_after:%Y-%m-%d}.")


def _key_file(wanted: Wanted) -> Path | None:
    return None if wanted.ca_key is None else Path(wanted.ca_key)


def _add_host(here: Installed, host: HostPlan, wanted: Wanted, now: datetime, out: Output) -> Changed:
    changed = add_host(
        here,
        host,
        authority(here, _key_file(wanted)),
        now,
        allow=[pattern for each in wanted.allow for pattern in patterns_of(each)],
        state_dir=PurePosixPath(absolute("--state-dir", wanted.state_dir)) if wanted.state_dir else None,
    )
    file = HOSTS / f"{host.name}.toml"
    out.say(f"Added host {host.name}: its key, its user in the server's file, its certificate, and {file}.")
    _tell_signed_by(changed, out)
    if not wanted.allow:
        out.say(f"No device may be opened there until {file} names it (host.allowed_devices).")
    for sentence in filter(None, map(yet_to_come, wanted.allow)):
        out.say(sentence)
    if (urlsplit(here.nats.url).hostname or "") in LOOPBACK_NAMES:
        out.say(
            f"NATS is at {here.nats.url}, which no other machine reaches: the host can only be on this one."
        )
    needed = (file, seed_path(cloning_role(host.name)), CA, *nbd_pair(host.name))
    out.say("What comes next:")
    out.say(f"  1. {_RELOAD}. Nobody else is disconnected.")
    out.say(
        f"  2. bring {', '.join(map(str, needed))} to its machine, below {here.at}, for its service to read: "
        f"under systemd `{_give(here, nbd_pair(host.name)[1])}` there."
    )
    out.say(f"  3. python -P -m services.write_cloning --config {shlex.quote(str(here.at / file))}")
    return changed


def _tell_key(here: Installed, role: str, out: Output) -> None:
    out.say(f"Made a new key for {role}: its seed is in {here.folder / seed_path(role)}.")
    out.say(
        "The server takes the old one until it reads its file again, and refuses it then. What comes next:"
    )
    out.say(
        "  1. stop what uses the key, unless it is stopped: a host cleanly (exit status 0), while the server takes the old one."
    )
    out.say(f"  2. {_RELOAD}.")
    out.say(f"  3. bring {seed_path(role)} to where it is used, and start what was stopped.")


def _give(here: Installed, key: PurePosixPath) -> str:
    """The command that gives a private key to whose process reads it: what is made belongs to the folder's owner."""
    who = "cutover-nats" if key == NATS_PAIR[1] else "cutover"
    return f"chown {who} {shlex.quote(str(here.at / key))}"


def _tell_renewed(here: Installed, changed: Changed, out: Output) -> None:
    everything = sorted({*changed.made, *changed.changed})
    out.say(f"Renewed {', '.join(str(each) for each in everything)}.")
    _tell_signed_by(changed, out)
    out.say("What comes next:")
    keys = (NATS_PAIR[1], *(nbd_pair(host)[1] for host in here.hosts))
    steps = [
        *(f"under systemd `{_give(here, key)}`, where it is used." for key in keys if key in changed.made),
        f"{_RELOAD}. Nobody is disconnected.",
        "bring the files of hosts and of NBD clients to their machines. A host uses its new ones by itself.",
    ]
    for number, step in enumerate(steps, start=1):
        out.say(f"  {number}. {step}")
