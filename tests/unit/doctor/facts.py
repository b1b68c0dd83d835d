"""Facts of a machine on which all is well, to be changed in the one thing that a test is about."""

from dataclasses import replace
from typing import Any

from services.console.doctor.facts import (
    BusFacts,
    DeviceLook,
    Facts,
    FileLook,
    MachineFacts,
    PatternLook,
    SocketLook,
    StateLook,
    StorageFacts,
)
from services.console.doctor.findings import Finding
from services.console.doctor.table import CHECKS
from shared.bus.interface import SERVICE_VERSION, ServiceInstance
from shared.config.model import GIB, Config, HostConfig
from shared.messages.host import ClosedView
from shared.messages.local import LocalStatus
from tests.support.statuses import status

HOST = HostConfig(name="h1", state_dir="/var/lib/cutover", allowed_devices=("/srv/*.img",))
DEVICE = DeviceLook(path="/srv/a.img", size_bytes=GIB)
STATE = StateLook(path="/var/lib/cutover", free_bytes=10 * GIB, sync_s=0.004)
MACHINE = MachineFacts(
    host=HOST,
    patterns=(PatternLook(pattern="/srv/*.img", devices=(DEVICE,)),),
    state=STATE,
    sockets=(SocketLook(address="unix:///run/nbd.sock", is_taken=True, is_nbd=True),),
    memory_bytes=16 * GIB,
    descriptors_max=1 << 20,
)


def instance(name: str, **metadata: str) -> ServiceInstance:
    return ServiceInstance(
        name=f"cutover-{name}", instance_id="i", metadata=metadata, version=SERVICE_VERSION
    )


CLONING = instance("write-cloning", host="h1", run="1", io_engine="io_uring")
INSTANCES = (instance("fault-recording"), instance("state-control"), instance("startup"), CLONING)
BUS = BusFacts(
    url="nats://127.0.0.1:4222",
    version="2.15.3",
    is_local=True,
    asks_for_credentials=True,
    streams={"CUTOVER_JOURNAL": (), "CUTOVER_PROGRESS": ()},
    storage=StorageFacts(used_bytes=1000, limit_bytes=None),
    server_ahead_s=0.01,
    hosts_ahead_s={"h1": -0.01},
    instances=INSTANCES,
)
WELL = Facts(config=Config(host=HOST), config_name="h1.toml", bus=BUS, machine=MACHINE)


_VOLUMES = "the volumes of all hosts"
AS_STARTUP = replace(
    WELL,
    config=Config(),
    machine=None,
    bus=replace(
        BUS,
        role="startup",
        instances=(CLONING,),
        storage=None,
        streams={"CUTOVER_JOURNAL": ()},
        unasked=("the stream CUTOVER_PROGRESS", *(each.name for each in INSTANCES[:3]), _VOLUMES),
    ),
)
CLOSED = ClosedView(name="vol9", uuid=None, code="not-admitted", message="its witness is lost")
OWN_WORD = LocalStatus(
    host="h1",
    run=1,
    sentence="Host h1 serves.",
    nats_is_away=False,
    nats_lost_at=None,
    migrations=(status(),),
    at="2026-11-29T12:00:00Z",
)
AS_HOST = replace(
    WELL,
    machine=replace(MACHINE, own_word=OWN_WORD),
    bus=replace(
        BUS,
        role="write_cloning-h1",
        instances=(),
        storage=None,
        streams={},
        server_ahead_s=None,
        hosts_ahead_s={},
        unasked=("the stream CUTOVER_JOURNAL", *(each.name for each in INSTANCES), _VOLUMES),
    ),
)


def with_own_word(**changes: Any) -> Facts:
    return replace(AS_HOST, machine=replace(MACHINE, own_word=replace(OWN_WORD, **changes)))


CUT_OFF = with_own_word(nats_is_away=True, nats_lost_at="2026-11-29T11:00:00Z")


def with_bus(**changes: Any) -> Facts:
    return replace(WELL, bus=replace(BUS, **changes))


def with_cloning(**changes: Any) -> Facts:
    return with_bus(instances=(*INSTANCES[:3], replace(CLONING, **changes)))


def with_machine(**changes: Any) -> Facts:
    return replace(WELL, machine=replace(MACHINE, **changes))


def with_host(**changes: Any) -> Facts:
    host = replace(HOST, **changes)
    return replace(WELL, config=Config(host=host), machine=replace(MACHINE, host=host))


def with_socket(**changes: Any) -> Facts:
    return with_machine(sockets=(SocketLook(address="tcp://127.0.0.1:4222", **changes),))


def with_state(**changes: Any) -> Facts:
    return with_machine(state=replace(STATE, **changes))


def with_device(**changes: Any) -> Facts:
    return with_machine(patterns=(PatternLook(pattern="/srv/*.img", devices=(replace(DEVICE, **changes),)),))


def with_pattern(**changes: Any) -> Facts:
    return with_machine(patterns=(PatternLook(pattern="/srv/*.img", **changes),))


def judged(check: str, facts: Facts) -> list[Finding]:
    (row,) = [each for each in CHECKS if each.name == check]
    return list(row.judge(facts))


def with_file(**changes: Any) -> Facts:
    look = FileLook(key="nats.nkey_seed_file", path="/k", is_secret=True)
    return replace(WELL, files=(replace(look, **changes),))
