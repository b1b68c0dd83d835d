"""Who may do what on the bus: each role's subjects, as data. The NATS server enforces it; `cutover init` writes it for it.

A role *tells* (publishes what nobody answers), *asks* (publishes, and is answered), *answers* (is asked), and *hears*
(what is published by others). Everything else follows from that: an answer goes to the inbox of whoever asked, so who
answers may publish to the inboxes of those that may ask it, and to no others; nobody hears an inbox but his own. What
no row allows is denied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.bus.bootstrap import PROGRESS_STREAM
from shared.config.model import INBOX_PREFIX
from shared.messages.admission import admission_subject
from shared.messages.control import FAULTS_SUBJECT, LIST_SUBJECT, control_subject
from shared.messages.host import HOST_SERVICE_NAME, host_subject
from shared.messages.recording import decision_subject, record_subject, repair_subject
from shared.messages.status import progress_subject
from shared.migration.names import is_valid_name
from shared.migration.records import Subjects

HOST_PLACEHOLDER = "HOST"  # in the documentation, where no host is meant in particular
OPERATOR, MONITOR, BOOTSTRAP = "operator", "monitor", "bootstrap"
RECORDING, CONTROL, STARTUP, CLONING = "fault_recording", "state_control", "startup", "write_cloning"

_EVERYTHING = "cutover.>"
_STREAMS = (Subjects.STREAM, PROGRESS_STREAM)
_LOOKING = ("query", "faults", "recover")  # the commands that change nothing, of one migration


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One user of the server. `answers` may be asked by every role whose `asks` meet them."""

    name: str
    purpose: str
    inbox_prefix: str
    tells: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """A role's, as the server is told them. A subject and a queue group with a blank between them are the server's way."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    subscribe_not: tuple[str, ...] = ()


def cloning_role(host: str) -> str:
    """The name of the role of one host."""
    return f"{CLONING}-{host}"


def roles(hosts: Sequence[str]) -> tuple[Role, ...]:
    """Every role there is, with one for each host."""
    return (*_PLAIN, *(_host(name) for name in hosts), _MONITOR, _OPERATOR)


def role_of_inboxes(prefix: str) -> Role:
    """Whose answers come there: no two roles have one prefix, and the server lets nobody hear another's.

    A stock client's is the operator's, and so is any that is not written by `cutover init`.
    """
    host = prefix.removeprefix(f"{_inbox_prefix(CLONING)}.")
    everyone = roles([host] if is_valid_name(host) else [])
    return next((role for role in everyone if role.inbox_prefix == prefix), _OPERATOR)


def may_ask(role: Role, subject: str) -> bool:
    """Whether a role may publish to this subject, and be answered."""
    return any(meet(asked, subject) for asked in role.asks)


def permissions(role: Role, everyone: Sequence[Role]) -> Permissions:
    """What the server has to be told of a role."""
    inboxes = {
        _inboxes_of_its_kind(asker)
        for asker in everyone
        if any(meet(asked, answered) for asked in asker.asks for answered in role.answers)
    }
    # A monitor that took part in a queue group would take requests away from the service that should answer them.
    overhearing = tuple(f"{subject} >" for subject in role.hears)
    return Permissions(
        publish=(*role.tells, *role.asks, *sorted(inboxes)),
        subscribe=(*role.answers, *role.hears, f"{role.inbox_prefix}.>"),
        subscribe_not=overhearing,
    )


def meet(one: str, other: str) -> bool:
    """Whether there is a subject that both patterns cover."""
    left, right = one.split("."), other.split(".")
    for mine, yours in zip(left, right, strict=False):
        if ">" in {mine, yours}:
            return True
        if mine != yours and "*" not in {mine, yours}:
            return False
    return len(left) == len(right)


def _inboxes_of_its_kind(role: Role) -> str:
    """All hosts' together: whoever answers one answers all, and a new host changes nobody else's permissions."""
    kind = f"{INBOX_PREFIX}_{CLONING}"
    return f"{kind}.>" if role.inbox_prefix.startswith(f"{kind}.") else f"{role.inbox_prefix}.>"


def _inbox_prefix(role: str) -> str:
    return f"{INBOX_PREFIX}_{role}"


def _discovery(service_name: str) -> tuple[str, ...]:
    """What a micro service of this name answers about itself."""
    return tuple(
        f"$SRV.{verb}{suffix}"
        for verb in ("PING", "INFO", "STATS")
        for suffix in ("", f".{service_name}", f".{service_name}.*")
    )


def _reading(stream: str) -> tuple[str, ...]:
    """A chain is read by its last message and a consumer of one's own, which is taken down afterwards."""
    return (f"$JS.API.STREAM.MSG.GET.{stream}", *_consuming(stream))


def _consuming(stream: str) -> tuple[str, ...]:
    return (
        f"$JS.API.CONSUMER.CREATE.{stream}.*.{Subjects.ALL}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
    )


def _copying(stream: str) -> tuple[str, ...]:
    """A backup is asked for once, and each piece of it is acknowledged, so that no more comes than is taken."""
    return (f"$JS.API.STREAM.SNAPSHOT.{stream}", f"$JS.SNAPSHOT.ACK.{stream}.>")


def _of_streams(verb: str) -> tuple[str, ...]:
    return tuple(f"$JS.API.STREAM.{verb}.{stream}" for stream in _STREAMS)


_ASK_FOR_HOSTS = (f"$SRV.INFO.{HOST_SERVICE_NAME}",)
_ASK_FOR_ALL = tuple(f"$SRV.{verb}{rest}" for verb in ("PING", "INFO", "STATS") for rest in ("", ".>"))
_RECORD_ALL = tuple(record_subject(what, "*", "*") for what in ("flag-set", "flag-clear", "fault"))
_LIST = f"$JS.API.STREAM.INFO.{Subjects.STREAM}"  # which migrations the journal has

_PLAIN = (
    Role(
        name=BOOTSTRAP,
        purpose="creates the streams, once, and checks them; may neither change, empty nor delete one that is there",
        inbox_prefix=_inbox_prefix(BOOTSTRAP),
        asks=(*_of_streams("INFO"), *_of_streams("CREATE"), *_ASK_FOR_ALL),
    ),
    Role(
        name=RECORDING,
        purpose="error flags and the fault log",
        inbox_prefix=_inbox_prefix(RECORDING),
        asks=(
            "cutover.journal.*.flag",
            "cutover.journal.*.fault.*",
            *_reading(Subjects.STREAM),
        ),
        answers=("cutover.record.>", *_discovery("cutover-fault-recording")),
    ),
    Role(
        name=CONTROL,
        purpose="answers commands, records states",
        inbox_prefix=_inbox_prefix(CONTROL),
        asks=(
            "cutover.journal.*.state",
            *_RECORD_ALL,
            "cutover.host.>",
            *_ASK_FOR_HOSTS,
            _LIST,
            *_reading(Subjects.STREAM),
        ),
        answers=("cutover.control.>", "cutover.decision.>", *_discovery("cutover-state-control")),
    ),
    Role(
        name=STARTUP,
        purpose="admits hosts; writes nothing itself",
        inbox_prefix=_inbox_prefix(STARTUP),
        asks=(
            *_RECORD_ALL,
            decision_subject("*", "*"),
            repair_subject("*", "*"),
            host_subject("*", "status", "*"),
            *_ASK_FOR_HOSTS,
            _LIST,
            *_reading(Subjects.STREAM),
        ),
        answers=("cutover.startup.>", *_discovery("cutover-startup")),
    ),
)

_MONITOR = Role(
    name=MONITOR,
    purpose="looks on: events, progress, what changes nothing",
    inbox_prefix=_inbox_prefix(MONITOR),
    asks=(
        LIST_SUBJECT,
        FAULTS_SUBJECT,
        *(control_subject(command, "*") for command in _LOOKING),
        *_ASK_FOR_ALL,
        *_of_streams("INFO"),
        *_of_streams("MSG.GET"),
    ),
    hears=(_EVERYTHING,),
)

_OPERATOR = Role(
    name=OPERATOR,
    purpose="every command, and everything that the monitor may",
    inbox_prefix=INBOX_PREFIX,  # of the stock programs, so that these work as they are
    asks=(
        "cutover.control.>",
        "$SRV.>",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        *_of_streams("INFO"),
        *_of_streams("MSG.GET"),
        *_consuming(Subjects.STREAM),
        *_copying(Subjects.STREAM),
    ),
    hears=(_EVERYTHING,),
)


def _host(name: str) -> Role:
    return Role(
        name=cloning_role(name),
        purpose=f"the data path of host {name}",
        inbox_prefix=f"{_inbox_prefix(CLONING)}.{name}",
        tells=(progress_subject("*"),),
        asks=(
            admission_subject(name),
            record_subject("flag-clear", name, "*"),
            record_subject("fault", name, "*"),
            decision_subject(name, "*"),
            *_reading(Subjects.STREAM),
        ),
        answers=(f"cutover.host.{name}.>", *_discovery(HOST_SERVICE_NAME)),
    )


def every_pair(hosts: Sequence[str]) -> Iterator[tuple[Role, Permissions]]:
    """Each role with its permissions."""
    everyone = roles(hosts)
    for role in everyone:
        yield role, permissions(role, everyone)
