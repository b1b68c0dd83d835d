"""Checks of this machine, for the host that its configuration makes of it."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from services.console.doctor.facts import DeviceLook, Facts, MachineFacts, PatternLook, StateLook
from services.console.doctor.findings import Finding, failure, ok, warning
from services.console.doctor.remedies import SILENT_HOST
from services.console.units import bytes_text
from shared.config.model import MIB
from shared.messages.host import HOST_SERVICE_NAME

OTHERS_MAY = 0o077
STATE_ROOM_LEAST_BYTES = 16 * MIB
STATE_ROOM_LOW_BYTES = 256 * MIB
SYNC_SLOW_S = 1.0
SECTOR_BYTES_MAX = 4096
POOLS_BYTES = 128 * MIB  # of each volume, besides its budget: the copier's, and what waits for a device
MEMORY_WARNING_SHARE = 0.5
MEMORY_FAILURE_SHARE = 0.9
DESCRIPTORS_LEAST = 256
DESCRIPTORS_GOOD = 4096  # 128 clients of a volume, some dozen volumes, their devices and maps
DEVICES_SHOWN_MAX = 8  # with trouble, of one pattern


def io_uring(facts: Facts) -> Iterator[Finding]:
    """Which engine does device I/O: what the host says while it runs, else what could be tried here."""
    machine = facts.machine
    if machine is None:
        return
    wanted, running = machine.host.io_engine, _engine_of_host(facts)
    if running:
        if running == "threads" and wanted != "threads":
            yield _threads(machine.why_not_io_uring or "the service was refused it")
        else:
            yield ok(f"the host does device I/O with {running}")
    elif wanted == "threads":
        yield ok("device I/O is done by threads, as configured")
    elif not machine.why_not_io_uring:
        yield ok("io_uring can be used here")
    elif wanted == "io_uring":
        yield failure(
            f"host.io_engine is io_uring, and the host will not start: {machine.why_not_io_uring}",
            "allow it (see docs/OPERATING.md), or set host.io_engine to auto",
        )
    else:
        yield _threads(machine.why_not_io_uring)


def _threads(why: str) -> Finding:
    return warning(
        f"device I/O is done by threads, which are slower: {why}",
        "allow io_uring (in containers: a seccomp profile that permits it)",
    )


def _engine_of_host(facts: Facts) -> str:
    if facts.machine is None:
        return ""
    own_word = facts.machine.own_word
    if own_word is not None and own_word.migrations and own_word.migrations[0].io_engine:
        return own_word.migrations[0].io_engine
    if facts.bus is None:
        return ""
    return next(
        (
            each.metadata.get("io_engine", "")
            for each in facts.bus.instances
            if each.name == HOST_SERVICE_NAME and each.metadata.get("host") == facts.machine.host.name
        ),
        "",
    )


def devices(facts: Facts) -> Iterator[Finding]:
    """Whether each pattern covers something, and what is wrong with what it covers."""
    if facts.machine is None:
        return
    if not facts.machine.patterns:
        yield warning("no device may be opened", "name some in host.allowed_devices")
    for pattern in facts.machine.patterns:
        yield from _of_pattern(pattern)


def _of_pattern(look: PatternLook) -> Iterator[Finding]:
    if look.is_remote:
        yield ok(f"{look.pattern}: remote exports are looked at when they are used")
        return
    if not look.devices:
        if look.links:
            yield warning(
                f"{look.pattern} covers only links ({look.links[0]}), and real paths are compared",
                "name what the links lead to",
            )
        else:
            yield warning(
                f"{look.pattern} covers nothing that is there", "mend the pattern, or bring the device"
            )
        return
    troubled = [each for each in look.devices if _trouble_of(each)]
    for each in troubled[:DEVICES_SHOWN_MAX]:
        yield warning(
            f"{each.path} {_trouble_of(each)}", "free or mend it before it is used, or do not allow it"
        )
    if len(troubled) > DEVICES_SHOWN_MAX:
        yield warning(
            f"{look.pattern}: {len(troubled) - DEVICES_SHOWN_MAX} more cannot be used", "see those above"
        )
    usable = len(look.devices) - len(troubled)
    if usable:
        sectors = sorted({each.sector_bytes for each in look.devices if not _trouble_of(each)})
        more = " or more" if look.has_more else ""
        sizes = ", ".join(f"{size}" for size in sectors)
        yield ok(f"{look.pattern}: {usable}{more} that can be opened, sectors of {sizes} bytes")


def _trouble_of(device: DeviceLook) -> str:
    if device.trouble:
        return device.trouble
    if device.use:
        return device.use
    if device.sector_bytes > SECTOR_BYTES_MAX:
        return f"has sectors of {device.sector_bytes} bytes, and more than {SECTOR_BYTES_MAX} are not served"
    if device.size_bytes == 0:
        return "has a size of zero"
    return ""


def state_directory(facts: Facts) -> Iterator[Finding]:
    """Whether the host's witnesses can be kept, and by it alone."""
    if facts.machine is None:
        return
    state = facts.machine.state
    if state.trouble:
        yield failure(
            f"{state.path} {state.trouble}", "mend host.state_dir, or run this as the service's user"
        )
    elif state.earlier:
        yield failure(
            f"{state.path} is new, and {state.earlier} of an earlier installation: the host does not start without it",
            "move that state there (docs/OPERATING.md, «From one installation to another»), or out of the way",
        )
    elif state.is_in_memory:
        yield failure(
            f"{state.path} is in memory: after a power cut every volume stays closed",
            "put host.state_dir on a disk of this machine",
        )
    elif not state.is_there:
        yield ok(f"{state.path} is not there yet; the service makes it")
    elif state.mode & OTHERS_MAY:
        yield warning(f"{state.path} is open to others (mode {state.mode:04o})", f"chmod 700 {state.path}")
    else:
        yield ok(f"{state.path}, mode {state.mode:04o}")


def state_room(facts: Facts) -> Iterator[Finding]:
    """Whether there is room for witnesses and region maps: writes wait for a witness that cannot be written."""
    state = facts.machine.state if facts.machine is not None else None
    if state is None or state.trouble:
        return
    said = f"{bytes_text(state.free_bytes)} free for {state.path}"
    todo = "make room: writes wait for a witness that cannot be written"
    if state.free_bytes < STATE_ROOM_LEAST_BYTES:
        yield failure(said, todo)
    elif state.free_bytes < STATE_ROOM_LOW_BYTES:
        yield warning(said, todo)
    else:
        yield ok(said)


def state_sync(facts: Facts) -> Iterator[Finding]:
    """Whether a small file becomes durable there, and soon: every decision waits for that."""
    state = _usable_state(facts)
    if state is None:
        return
    if state.sync_trouble:
        yield failure(
            f"fsync does not work in {state.path}: {state.sync_trouble}", "put host.state_dir elsewhere"
        )
    elif state.sync_s is not None and state.sync_s > SYNC_SLOW_S:
        yield warning(
            f"fsync took {state.sync_s:.1f} s in {state.path}, and every decision waits for one",
            "find out what keeps that disk busy, or put host.state_dir elsewhere",
        )
    elif state.sync_s is not None:
        yield ok(f"fsync took {state.sync_s * 1000:.0f} ms in {state.path}")


def _usable_state(facts: Facts) -> StateLook | None:
    state = facts.machine.state if facts.machine is not None else None
    return None if state is None or state.trouble or not state.is_there else state


def export_sockets(facts: Facts) -> Iterator[Finding]:
    """Whether clients can be listened for."""
    if facts.machine is None:
        return
    for trouble in facts.machine.account_troubles:
        yield failure(f"{trouble}: the host would not start", "name one that this machine has")
    if elsewhere := _served_elsewhere(facts.machine):
        yield ok(
            f"by the host's own word its volumes are at {elsewhere}, and not where nbd.listen says: a socket was handed to it"
        )
        return
    is_up = bool(_engine_of_host(facts)) or _is_up(facts)
    for socket in facts.machine.sockets:
        if socket.trouble:
            yield failure(f"{socket.address} {socket.trouble}", "mend nbd.listen")
        elif socket.is_taken and not is_up and (process := facts.machine.silent_host) is not None:
            yield failure(
                f"{socket.address} is listened on, but this machine's host (process {process}) runs and does not answer",
                SILENT_HOST,
            )
        elif socket.is_taken and not is_up:
            yield failure(
                f"somebody else listens on {socket.address}", "end that, or give nbd.listen another address"
            )
        elif socket.is_taken and socket.is_nbd is False:
            yield failure(
                f"something else listens on {socket.address}: it is no NBD server",
                "end that, or give nbd.listen another address",
            )
        elif socket.is_taken and socket.is_nbd is None:
            yield warning(
                f"what listens on {socket.address} has not greeted as an NBD server does",
                "if this machine's host waits for its admission, mend what it waits for; else see what listens there",
            )
        else:
            yield ok(f"{socket.address}{' is listened on' if socket.is_taken else ' can be listened on'}")


def _served_elsewhere(machine: MachineFacts) -> str:
    """The Unix socket that the host tells its clients of, where that is none of the configuration's; empty otherwise.

    Of TCP addresses it tells by another name, which proves nothing.
    """
    told = machine.own_word.migrations if machine.own_word is not None else ()
    sockets = {_unix_address(each.export_uri) for each in told if each.export_uri is not None} - {""}
    configured = {each.address for each in machine.sockets}
    return ", ".join(sorted(sockets)) if sockets and not sockets & configured else ""


def _unix_address(uri: str) -> str:
    """Of an export's URI, the address as nbd.listen would have it; empty where it is none of a Unix socket."""
    parts = urlsplit(uri)
    (path,) = parse_qs(parts.query).get("socket", [""])
    return f"unix://{path}" if parts.scheme == "nbd+unix" and path else ""


def _is_up(facts: Facts) -> bool:
    """By its own word, which needs no NATS, or by what others see of it."""
    if facts.machine is None:
        return False
    return facts.machine.own_word is not None or (
        facts.bus is not None
        and any(each.metadata.get("host") == facts.machine.host.name for each in facts.bus.instances)
    )


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether the volumes' budgets fit this machine."""
    if (machine := facts.machine) is None:
        return
    known = facts.bus.migrations if facts.bus is not None else ()
    told = machine.own_word.migrations if machine.own_word is not None else ()
    count = max(1, len(told), sum(each.host == machine.host.name for each in known))
    needed_bytes = count * (machine.host.inflight_budget_bytes + POOLS_BYTES)
    volumes = "1 volume" if count == 1 else f"{count} volumes"
    said = f"{volumes} may take {bytes_text(needed_bytes)} of {bytes_text(machine.memory_bytes)}"
    todo = "lower host.inflight_budget_bytes"
    if needed_bytes > MEMORY_FAILURE_SHARE * machine.memory_bytes:
        yield failure(said, todo)
    elif needed_bytes > MEMORY_WARNING_SHARE * machine.memory_bytes:
        yield warning(said, todo)
    else:
        yield ok(said)


def descriptors(facts: Facts) -> Iterator[Finding]:
    """Whether a host may have enough files and clients open; it raises the soft limit to the hard one by itself."""
    if (machine := facts.machine) is None:
        return
    said = f"{machine.descriptors_max} open files are allowed"
    todo = "raise the hard limit (LimitNOFILE=, ulimit -Hn)"
    if machine.descriptors_max < DESCRIPTORS_LEAST:
        yield failure(said, todo)
    elif machine.descriptors_max < DESCRIPTORS_GOOD:
        yield warning(f"{said}: the clients of few volumes reach that", todo)
    else:
        yield ok(said)
