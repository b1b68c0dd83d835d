"""Who is there: what came back to one question that everyone may answer, and which of it counts.

Every instance of a service answers, and any of them can send anything. So an answer that cannot be read is passed over
by itself, and hides none of the others.
"""

from dataclasses import dataclass

from shared.bus.interface import ServiceInstance
from shared.messages.codec import decode_reply
from shared.migration.refusals import Refusal

INSTANCES_MAX = 1000
NOBODY_DOUBTED_S = (
    0.1  # how long it is heard on after the word that nobody is there: not only the server can give it
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Info:
    """What is read of the answer to `$SRV.INFO`; the field names are the protocol's."""

    name: str
    id: str
    metadata: dict[str, str]
    version: str = ""


class Answers:
    """What came back to one question."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self.instances: list[ServiceInstance] = []
        self.passed_over = ""  # why the first that does not count does not

    @property
    def is_full(self) -> bool:
        """Whether more would be more than is believed."""
        return len(self.instances) >= INSTANCES_MAX

    def take(self, payload: bytes) -> None:
        """Read one, or pass it over."""
        try:
            info = decode_reply(_Info, payload)
        except Refusal as refusal:
            self.passed_over = self.passed_over or refusal.message
            return
        if info.name != self._service_name:
            self.passed_over = self.passed_over or "It is given in the name of another service."
            return
        self.instances.append(
            ServiceInstance(name=info.name, instance_id=info.id, metadata=info.metadata, version=info.version)
        )
