"""The host's commands as endpoints on the bus. Each is handed to the migration that it names."""

from typing import Any

from services.write_cloning.examiner import Examiner
from services.write_cloning.host import Host
from shared.bus.interface import Endpoint, Handler
from shared.messages.control import PlainRequest
from shared.messages.host import (
    EnterRequest,
    HostCommand,
    HostSetupRequest,
    TryAgainRequest,
    WaitingReply,
    host_status_subject,
    host_subject,
    host_waiting_subject,
)
from shared.messages.recovery import ExamineRequest
from shared.migration.table import Trigger

_COMMANDS = (Trigger.SELECT_TARGET, Trigger.SELECT_SOURCE, Trigger.COMMIT, Trigger.ABORT)


def endpoints_of(host: Host, host_name: str) -> list[Endpoint]:
    """Everything that this host answers."""
    handlers: dict[str, tuple[type, Handler]] = {
        "setup": (HostSetupRequest, host.set_up),
        "enter": (EnterRequest, lambda name, request: host.find(name).enter(request)),
        "cleanup": (HostCommand, host.clean_up),
        "pause": (HostCommand, lambda name, request: host.find(name).pause(request, paused=True)),
        "resume": (HostCommand, lambda name, request: host.find(name).pause(request, paused=False)),
        "verify": (HostCommand, lambda name, request: host.find(name).verify(request)),
        "throttle": (HostCommand, lambda name, request: host.find(name).limit(request)),
        "vouch": (HostCommand, host.vouch),
        "status": (PlainRequest, _status_handler(host)),
        "try-again": (TryAgainRequest, host.try_again),
        "examine": (ExamineRequest, Examiner(host).examine),
    }
    for trigger in _COMMANDS:
        handlers[trigger] = (HostCommand, _command_handler(host, trigger))
    endpoints = [
        Endpoint(name=name, subject=host_subject(host_name, name, "*"), request=request, handler=handler)
        for name, (request, handler) in handlers.items()
    ]
    status_of_all = Endpoint(
        name="host-status",
        subject=host_status_subject(host_name),
        request=PlainRequest,
        handler=_status_handler(host),
    )
    return [*endpoints, status_of_all]


def _command_handler(host: Host, trigger: Trigger) -> Handler:
    async def handle(name: str, request: HostCommand) -> object:
        return await host.find(name).command(trigger, request)

    return handle


def _status_handler(host: Host) -> Handler:
    async def handle(name: str, _request: Any) -> object:  # noqa: ANN401 - takes nothing
        return host.status(name or None)

    return handle


class Waiting:
    """What a host says of itself before it is admitted: what it waits for. Nothing else is asked of it then."""

    def __init__(self, host_name: str, run: int) -> None:
        """It has not asked yet."""
        self.why = ""
        self._host_name = host_name
        self._run = run

    def endpoint(self) -> Endpoint:
        """What is answered."""
        return Endpoint(
            name="waiting",
            subject=host_waiting_subject(self._host_name),
            request=PlainRequest,
            handler=self._tell,
        )

    async def _tell(self, _name: str, _request: PlainRequest) -> WaitingReply:
        return WaitingReply(host=self._host_name, run=self._run, why=self.why)
