"""The NATS server's configuration with TLS, and a user with the permissions of each role. Pure: text out of data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from shared.bus.permissions import Permissions, Role, permissions
from shared.messages.codec import MESSAGE_BYTES_MAX

ACCOUNT = "CUTOVER"
_USERS_BEGIN, _USERS_END = "\n    users: [\n", "\n    ]\n"
_HEAD = """\
# Written by `cutover init`: the NATS server that Cutover's services meet on.
# Each role has a user of its own, known by the public part of its key (nkey), and may do what stands here and no more.
# A key is replaced by another public key here, and the other seed in the role's file; SIGHUP has it read.

server_name: cutover
host: {host}
port: {port}

# Services see there that the server syncs before it acknowledges. It knows no passwords, and tells what everyone listens on: it
# is meant for this machine, or for a network of these services alone.
http: {monitor}

max_payload: {max_payload}

tls {{
  cert_file: {certificate}
  key_file: {key}
  min_version: "1.2"
  timeout: 5
}}

jetstream {{
  store_dir: {store}
  # Sync before acknowledging: an acknowledged record outlives a power cut.
  sync_interval: always
}}

system_account: SYS
accounts {{
  SYS {{}}
  {account} {{
    jetstream: enabled
    users: [
{users}
    ]
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What the file says: where the server listens, and where its files will be."""

    host: str
    port: int
    monitor: str  # HOST:PORT
    certificate: str
    key: str
    store: str


def server_text(plan: ServerPlan, everyone: Sequence[Role], public_keys: dict[str, str]) -> str:
    """The whole file."""
    return _HEAD.format(
        host=_quoted(plan.host),
        port=plan.port,
        monitor=_quoted(plan.monitor),
        max_payload=MESSAGE_BYTES_MAX,
        certificate=_quoted(plan.certificate),
        key=_quoted(plan.key),
        store=_quoted(plan.store),
        account=ACCOUNT,
        users="\n".join(
            _user(role, permissions(role, everyone), public_keys[role.name]) for role in everyone
        ),
    )


def with_user(text: str, role: Role, allowed: Permissions, public_key: str) -> str:
    """The file with one user more, behind the others.

    Raises:
        ValueError: it is not as it was written, or has the role already.
    """
    if _known(text, role.name) is not None:
        raise ValueError(f"it has a user {role.name} already")
    begins = text.find(_USERS_BEGIN)
    ends = text.find(_USERS_END, begins)
    if begins < 0 or ends < 0:
        raise ValueError("the list of users in it is not where it was written")
    return f"{text[:ends]}\n{_user(role, allowed, public_key)}{text[ends:]}"


def with_key(text: str, role: str, public_key: str) -> str:
    """The file with another key for a user.

    Raises:
        ValueError: it is not as it was written, or does not have the role.
    """
    known = _known(text, role)
    if known is None:
        raise ValueError(f"there is no user below a comment `# {role}: …` in it")
    return f"{text[: known.start('key')]}{public_key}{text[known.end('key') :]}"


def _known(text: str, role: str) -> re.Match[str] | None:
    return re.search(rf"^ *# {re.escape(role)}: .*\n *\{{ *nkey: *(?P<key>U[A-Z2-7]+)$", text, re.MULTILINE)


def _user(role: Role, allowed: Permissions, public_key: str) -> str:
    lines = [
        f"      # {role.name}: {role.purpose}",
        f"      {{ nkey: {public_key}",
        "        permissions: {",
        f"          publish: {{ allow: {_listed(allowed.publish)} }}",
        f"          subscribe: {{ allow: {_listed(allowed.subscribe)}, deny: {_listed(allowed.subscribe_not)} }}",
        "        }",
        "      }",
    ]
    return "\n".join(lines)


def _listed(subjects: Sequence[str]) -> str:
    if not subjects:
        return "[]"
    return "[\n" + "\n".join(f"            {_quoted(each)}" for each in subjects) + "\n          ]"


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()  # as NATS reads it, too
