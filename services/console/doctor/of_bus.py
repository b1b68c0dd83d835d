"""Checks of the NATS server and of who answers there."""

from collections import Counter
from collections.abc import Iterator, Sequence

from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, failure, ok, warning
from services.console.doctor.remedies import SILENT_HOST, start
from services.console.named_nats import is_of_installation
from services.console.units import bytes_text
from shared.bus.bootstrap import PROGRESS_STREAM
from shared.bus.durability import SERVER_VERSION_MIN, version_of
from shared.bus.interface import SERVICE_VERSION
from shared.bus.permissions import OPERATOR, cloning_role
from shared.bus.unconnected import Why
from shared.config.model import GIB, MIB
from shared.messages.host import HOST_SERVICE_NAME, WAITS_FOR_ADMISSION
from shared.messages.status import Listed, MigrationStatus, application_trouble
from shared.migration.condition import JournalCondition
from shared.migration.records import Subjects

SERVICES = ("cutover-fault-recording", "cutover-state-control", "cutover-startup", HOST_SERVICE_NAME)
JOURNAL_ROOM, VOLUMES = "the journal's room", "the volumes of all hosts"  # what may be asked for, by name
CLOCK_WARNING_S = 1.0
CLOCK_FAILURE_S = 300.0  # certificates and a person's sense of what came first go wrong
JOURNAL_ROOM_LEAST_BYTES = 16 * MIB
JOURNAL_ROOM_LOW_BYTES = GIB // 4
CERTIFICATE_SOON_DAYS = 14
_NAMES_SHOWN_MAX = 5

RENEW_NATS = "where the installation is kept, `cutover init DIR --renew`; then have the server read its file again (SIGHUP)"
_SEE_LOG = "its log says why NATS refuses it"
_AWAY = f"start its write cloning service; if it runs, {_SEE_LOG}. `cutover recover` tells of its volumes"
_WAITS = "mend what it waits for; it asks again by itself"
_NO_FILE = "mend that file: the lines about files say how"
_START_OWN = "start the NATS server of this installation, or see to the network between"
_REMEDIES = {
    Why.AWAY: "start it (`cutover up` starts one), or set nats.url, CUTOVER_NATS_URL or --server",
    Why.NO_TLS: "nothing was sent to it: see whether nats.url names the right server, and whether that has `tls` in its file",
    Why.EXPIRED: RENEW_NATS,
    Why.NAME: "let nats.url name the server as its certificate does",
    Why.AUTHORITY: "let nats.tls_ca_file name the authority of that server: tls/ca.pem of the installation that it belongs to",
    Why.CREDENTIALS: "let nats.nkey_seed_file name the seed that belongs to this role; if the server's file has its key, have "
    "that read again (SIGHUP)",
    Why.INBOX: "let nats.nkey_seed_file and nats.inbox_prefix be of one role, as in the file that `cutover init` wrote for it",
}


def reachable(facts: Facts) -> Iterator[Finding]:
    """Whether there is a NATS server."""
    if facts.bus is not None:
        yield ok(f"{facts.bus.url} answers")
    elif facts.bus_trouble:
        todo = _NO_FILE if facts.bus_why is None else _REMEDIES[facts.bus_why]
        if facts.bus_why is Why.AWAY and facts.config is not None and is_of_installation(facts.config.nats):
            todo = _START_OWN  # `cutover up` would start another beside it
        yield failure(f"{facts.bus_trouble} Whatever it could tell is not looked at.", todo)


def certificate(facts: Facts) -> Iterator[Finding]:
    """Whether the certificate that the server shows will be good for a while: from then on nobody connects any more."""
    days = facts.bus.certificate_days if facts.bus is not None else None
    if days is None:
        return
    if days <= 0:
        yield failure("the certificate that the NATS server shows has expired", RENEW_NATS)
    elif days < CERTIFICATE_SOON_DAYS:
        yield warning(f"the certificate that the NATS server shows expires in {days:.0f} days", RENEW_NATS)
    else:
        yield ok(f"the NATS server shows a certificate that is good for {days:.0f} days")


def server_version(facts: Facts) -> Iterator[Finding]:
    """Whether the server is new enough to be relied on."""
    if (bus := facts.bus) is None:
        return
    least = ".".join(str(number) for number in SERVER_VERSION_MIN)
    if version_of(bus.version) < SERVER_VERSION_MIN:
        yield failure(
            f"the NATS server is {bus.version}: before {least} acknowledged records could be lost",
            f"install {least} or newer",
        )
    else:
        yield ok(f"the NATS server is {bus.version}")


def sync_setting(facts: Facts) -> Iterator[Finding]:
    """Whether what the journal acknowledges is on disk."""
    if (bus := facts.bus) is None or version_of(bus.version) < SERVER_VERSION_MIN:
        return
    if not bus.can_see_sync:
        yield warning(
            "whether the journal syncs before it acknowledges cannot be seen with this configuration: it has no nats.monitor_url",
            "use that of fault_recording, which refuses to set a flag without",
        )
    elif bus.lacking and bus.accepts_less:
        yield warning(
            f"accepted by nats.accept_unsynced_journal: {bus.lacking}",
            "set `sync_interval: always` in the server's `jetstream` section, and take the key away",
        )
    elif bus.lacking:
        yield failure(
            f"a power cut may take acknowledged records: {bus.lacking}",
            "`sync_interval: always` in the server's `jetstream` section, and nats.monitor_url where it can be seen",
        )
    else:
        yield ok("the journal syncs before it acknowledges")


def credentials(facts: Facts) -> Iterator[Finding]:
    """Whether anyone who reaches the server may do anything."""
    if (bus := facts.bus) is None:
        return
    if bus.asks_for_credentials:
        yield ok("the server asks who one is")
    elif bus.is_local:
        yield ok("the server asks nobody who he is; it is on this machine's own address")
    else:
        yield warning(
            f"whoever reaches {bus.url} may do anything: the server asks nobody who he is",
            "let `cutover init` write an installation with a key for each role",
        )


def permissions(facts: Facts) -> Iterator[Finding]:
    """Whether we may ask what we have to."""
    if (bus := facts.bus) is None:
        return
    host, role = facts.config.host if facts.config is not None else None, bus.role
    is_anothers = host is not None and role != OPERATOR and role != cloning_role(host.name)
    if host is not None and is_anothers:
        yield failure(
            f"the host would not start: nats.nkey_seed_file and nats.inbox_prefix are of the role {role}, which may not ask for "
            f"the admission of {host.name}",
            f"take both from the file that `cutover init` wrote for {host.name}",
        )
    for denied in bus.denied:
        yield failure(denied, "use the operator's credentials, or have the server permit it")
    if not bus.denied and not is_anothers:
        yield ok(f"what was asked here as {bus.role} is permitted")


def not_checked(facts: Facts) -> Iterator[Finding]:
    """What our role may not ask. That is as it should be, and nothing is known of it."""
    if (bus := facts.bus) is not None and bus.unasked:
        yield ok(f"{', '.join(bus.unasked)}: the role {bus.role} may not ask for that; use operator.toml")


def streams(facts: Facts) -> Iterator[Finding]:
    """Whether both streams are there with the settings that keep what they hold."""
    if (bus := facts.bus) is None:
        return
    wrong = False
    bootstrap = start(facts, "shared.bus.bootstrap", "services/bootstrap.toml")
    for name, differing in bus.streams.items():
        if differing is None and name == PROGRESS_STREAM:
            wrong = True
            yield warning(
                f"the stream {name} is not there: it is kept in memory, and ends with its server; who comes late misses the "
                "last progress",
                f"run `{bootstrap}` again, as after every start of NATS",
            )
        elif differing is None:
            wrong = True
            yield failure(f"the stream {name} is not there", f"run `{bootstrap}` once")
        elif differing:
            wrong = True
            yield failure(
                f"the stream {name} has other settings: {'; '.join(differing)}",
                "nothing is safe in it: find out who made it; `cutover recover` tells what hosts still know",
            )
    if not wrong and {Subjects.STREAM, PROGRESS_STREAM} <= set(bus.streams):
        yield ok(f"{Subjects.STREAM} and {PROGRESS_STREAM} are as they have to be")


def journal_room(facts: Facts) -> Iterator[Finding]:
    """Whether the journal can grow: when it is full, nothing is recorded any more."""
    storage = facts.bus.storage if facts.bus is not None else None
    if storage is None:
        return
    if storage.limit_bytes is None:
        yield ok(f"JetStream holds {bytes_text(storage.used_bytes)}, and has no limit")
        return
    free_bytes = max(0, storage.limit_bytes - storage.used_bytes)
    said = f"JetStream has {bytes_text(free_bytes)} left of {bytes_text(storage.limit_bytes)}"
    if free_bytes < JOURNAL_ROOM_LEAST_BYTES:
        yield failure(
            f"{said}: soon nothing is recorded any more", "raise the limit, or free the server's disk"
        )
    elif free_bytes < JOURNAL_ROOM_LOW_BYTES:
        yield warning(said, "raise the limit, or free the server's disk")
    else:
        yield ok(said)


def clocks(facts: Facts) -> Iterator[Finding]:
    """Whether the clocks agree. Nothing is decided on them, but people and certificates rely on them."""
    if (bus := facts.bus) is None:
        return
    told = {f"host {name}": ahead_s for name, ahead_s in bus.hosts_ahead_s.items()}
    if bus.server_ahead_s is not None:
        told = {"the NATS server": bus.server_ahead_s} | told
    wrong = {
        who: ahead_s for who, ahead_s in told.items() if abs(ahead_s) - bus.clock_doubt_s > CLOCK_WARNING_S
    }
    for who, ahead_s in wrong.items():
        where = "ahead of" if ahead_s > 0 else "behind"
        said = f"the clock of {who} is {abs(ahead_s):.1f} s {where} this machine's"
        todo = "have all of them set by NTP"
        yield failure(said, todo) if abs(ahead_s) > CLOCK_FAILURE_S else warning(said, todo)
    if told and not wrong:
        yield ok(f"the clocks of {', '.join(told)} and of this machine agree")


def services(facts: Facts) -> Iterator[Finding]:
    """Whether every service answers, once, in one version."""
    if (bus := facts.bus) is None:
        return
    present = Counter(each.name for each in bus.instances)
    asked = [name for name in SERVICES if name not in bus.unasked]
    missing = [name for name in asked if not present[name]]
    if missing:
        is_hanging = any(_hanging(facts))
        to_start = [each for each in missing if each != HOST_SERVICE_NAME or not is_hanging]
        todo = f"start: {', '.join(_start_of(facts, each) for each in to_start)}" if to_start else SILENT_HOST
        yield failure(f"nobody answers as {', '.join(missing)}", todo)
    elif asked:
        yield ok(
            f"all answer: {', '.join(f'{name} ×{count}' if count > 1 else name for name, count in present.items())}"
        )
    others = sorted({each.version for each in bus.instances if each.version != SERVICE_VERSION})
    if others:
        yield warning(
            f"services of other versions answer: {', '.join(others)}; this is {SERVICE_VERSION}",
            "upgrade all of them to one version",
        )


def _start_of(facts: Facts, service: str) -> str:
    name = service.removeprefix("cutover-").replace("-", "_")
    own = facts.config.host if facts.config is not None else None
    host_file = f"hosts/{own.name if own is not None else 'NAME'}.toml"
    return start(
        facts, f"services.{name}", host_file if service == HOST_SERVICE_NAME else f"services/{name}.toml"
    )


def hosts(facts: Facts) -> Iterator[Finding]:
    """Whether the hosts that have migrations are up, and each name is one machine's."""
    own_troubles = [*_cut_off(facts), *_hanging(facts)]
    yield from own_troubles
    if (bus := facts.bus) is None:
        return
    up = Counter(each.metadata.get("host", "") for each in bus.instances if each.name == HOST_SERVICE_NAME)
    twice = [name for name, count in up.items() if count > 1]
    own = facts.config.host.name if facts.config is not None and facts.config.host is not None else None
    told = {own} if own_troubles else set()
    away = sorted(
        {each.host for each in bus.migrations if not each.host_answers and not up[each.host]} - told
    )
    for name in twice:
        yield failure(
            f"{up[name]} services answer as host {name}", "stop all but one, or give each a host.name"
        )
    for name in away:
        theirs = [each for each in bus.migrations if each.host == name]
        why = theirs[0].host_error or f"host {name} does not answer."
        todo = _WAITS if WAITS_FOR_ADMISSION in why else _AWAY
        yield failure(f"{why} It has {', '.join(each.name for each in theirs)}", todo)
    if own is not None and own not in {*away, *up, *told} and not _answers_here(facts):
        yield _missing(facts, own)
    elif HOST_SERVICE_NAME in bus.unasked:
        if own is not None and not own_troubles:
            yield ok(f"this machine's host, {own}, answers")
    elif not up and not away and not own_troubles:
        todo = f"start {start(facts, 'services.write_cloning', 'hosts/NAME.toml')} on its machine"
        yield warning("no host answers", todo)
    else:
        silent = sorted(set(facts.installed_hosts) - {own, *up, *away})
        for name in silent:
            yield _silent(facts, name, is_empty=bus.has_list)
        if not twice and not away and not own_troubles and not silent:
            yield ok(f"up: {', '.join(sorted(up))}")


def _missing(facts: Facts, own: str) -> Finding:
    """This machine's host, which is not there. Our role may not ask which migrations are its; its folder tells."""
    todo = f"start {start(facts, 'services.write_cloning', f'hosts/{own}.toml')}; if it runs, {_SEE_LOG}"
    theirs = facts.machine.state.witnesses if facts.machine is not None else ()
    if not theirs:
        return warning(f"this machine's host, {own}, does not answer", todo)
    more = ", …" if len(theirs) > _NAMES_SHOWN_MAX else ""
    names = f"{', '.join(theirs[:_NAMES_SHOWN_MAX])}{more}"
    return failure(f"this machine's host, {own}, does not answer. It has {names}", todo)


def _silent(facts: Facts, name: str, *, is_empty: bool) -> Finding:
    """A host that the installation has, and nobody would miss before the first `setup` there."""
    command = start(facts, "services.write_cloning", f"hosts/{name}.toml")
    return warning(
        f"host {name} does not answer{'; it has no migration' if is_empty else ''}",
        f"start {command} on its machine; if it runs, {_SEE_LOG}. If it is gone for good, see «A host that goes» in "
        "docs/SECURITY.md",
    )


def _cut_off(facts: Facts) -> Iterator[Finding]:
    """This machine's host by its own word, where NATS takes us and not it: it would be the last to be missed."""
    told = facts.machine.own_word if facts.machine is not None else None
    if told is None or not told.nats_is_away:
        return
    does = "serves its volumes" if told.migrations else "runs"
    since = told.nats_lost_at or "it was started"
    yield failure(
        f"this machine's host, {told.host}, {does}, but has had no NATS since {since}",
        "its log says why. A key or a CA file that was replaced is read when the host is started: see «Credentials and TLS» "
        "in docs/OPERATING.md before it is stopped",
    )


def _hanging(facts: Facts) -> Iterator[Finding]:
    """This machine's host, where it runs, by the lock that it has, and answers neither here nor by NATS."""
    if (machine := facts.machine) is None or machine.silent_host is None:
        return
    instances = facts.bus.instances if facts.bus is not None else ()
    if any(each.metadata.get("host") == machine.host.name for each in instances):
        return
    yield failure(
        f"this machine's host, {machine.host.name}, runs (process {machine.silent_host}) and does not answer",
        SILENT_HOST,
    )


def volumes(facts: Facts) -> Iterator[Finding]:
    """Whether every volume is open; where only this machine's host can be asked, every one of it."""
    bus = facts.bus
    if bus is None or VOLUMES in bus.unasked:
        yield from _own_volumes(facts)
        return
    if not bus.has_list:
        yield warning("not looked at: state control did not tell of them", "see the other lines for why")
        yield from _own_volumes(facts)
        return
    closed = [each for each in bus.listed if each.host_answers and each.host_error]
    for each in closed:
        yield failure(f"{each.name} is closed: {each.host_error}", f"see `cutover recover {each.name}`")
    yield from _troubled(bus.listed)
    for each in bus.migrations:
        is_told = each.journal_condition is not JournalCondition.SOUND  # by the check of the journal
        if each.host_answers and not each.host_error and not is_told:
            yield from _warned(each)
    if count := len(bus.listed) - len(closed):
        yield ok(f"{count} open" if all(each.host_answers for each in bus.listed) else f"{count} known")
    elif not closed:
        yield ok("there is no migration")


def unanswered(facts: Facts) -> Iterator[Finding]:
    """What could not be asked, for another reason than a denial."""
    for trouble in facts.bus.troubles if facts.bus is not None else ():
        yield failure(trouble, "see the service's log")


def _own_volumes(facts: Facts) -> Iterator[Finding]:
    own_word = facts.machine.own_word if facts.machine is not None else None
    if own_word is None:
        return
    for closed in own_word.closed:
        yield failure(f"{closed.name} is closed: {closed.message}", f"see `cutover recover {closed.name}`")
    yield from _troubled(own_word.migrations)
    for each in own_word.migrations:
        if each.journal_condition is JournalCondition.SOUND:
            yield from _warned(each)
    if not own_word.closed:
        yield ok(f"{len(own_word.migrations)} open on this machine's host")


def _troubled(listed: Sequence[Listed]) -> Iterator[Finding]:
    for each in listed:
        if trouble := application_trouble(each):
            todo = f"see «The application gets errors» in docs/OPERATING.md, and `cutover query {each.name}`"
            yield failure(trouble.removesuffix("."), todo)


def _warned(each: MigrationStatus) -> Iterator[Finding]:
    """The first of its warnings; what the application meets is told already."""
    warnings = [every for every in each.warnings if every != each.application_trouble]
    if warnings:
        yield warning(f"{each.name}: {warnings[0]}", f"see `cutover query {each.name}`")


def _answers_here(facts: Facts) -> bool:
    return facts.machine is not None and facts.machine.own_word is not None
