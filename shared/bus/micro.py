"""The NATS micro service protocol (ADR-32): how a service is discovered, described and counted by anyone's tools.

Written here rather than taken from nats-py, whose endpoints answer one request at a time and tell the asker the text of
unforeseen exceptions.
"""

from dataclasses import asdict, dataclass, field
from time import perf_counter_ns

from shared.bus.answering import Answer
from shared.bus.interface import Endpoint, ServiceDescription
from shared.plain import plain

ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"

_DESCRIPTION_LENGTH_MAX = 512
_VERBS = ("PING", "INFO", "STATS")


def discovery_subjects(service_name: str, instance_id: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a verb and a subject on which it is asked: of everyone, of those of the name, of the very instance."""
    return tuple(
        (verb, f"$SRV.{verb}{suffix}")
        for verb in _VERBS
        for suffix in ("", f".{service_name}", f".{service_name}.{instance_id}")
    )


def error_headers(answer: Answer) -> dict[str, str] | None:
    """The headers of a reply: none when it is no error."""
    if answer.refusal is None:
        return None
    one_line = plain(" ".join(answer.refusal.message.split()))[:_DESCRIPTION_LENGTH_MAX]
    return {ERROR_CODE_HEADER: answer.refusal.code, ERROR_HEADER: one_line}


@dataclass(slots=True)
class EndpointStatistics:
    """What `$SRV.STATS` tells of one endpoint; the field names are the protocol's."""

    name: str
    subject: str
    queue_group: str
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0  # nanoseconds
    average_processing_time: int = 0

    def count(self, answer: Answer, began_ns: int) -> None:
        """Count one answered request that was begun at this `perf_counter_ns`."""
        self.num_requests += 1
        self.processing_time += perf_counter_ns() - began_ns
        self.average_processing_time = self.processing_time // self.num_requests
        if answer.refusal is not None:
            self.num_errors += 1
            self.last_error = f"{answer.refusal.code}: {answer.refusal.message}"


@dataclass(slots=True)
class MicroService:
    """One instance as it tells of itself."""

    service: ServiceDescription
    instance_id: str
    group: str
    started: str  # RFC 3339
    statistics: list[EndpointStatistics] = field(default_factory=list)

    def add(self, endpoint: Endpoint) -> EndpointStatistics:
        """Begin to count for an endpoint."""
        statistics = EndpointStatistics(endpoint.name, endpoint.subject, self.group)
        self.statistics.append(statistics)
        return statistics

    def describe(self, verb: str) -> dict[str, object]:
        """The answer to `$SRV.PING`, `$SRV.INFO` or `$SRV.STATS`."""
        common: dict[str, object] = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response",
            "name": self.service.name,
            "id": self.instance_id,
            "version": self.service.version,
            "metadata": dict(self.service.metadata),
        }
        match verb:
            case "INFO":
                return common | {"description": self.service.description, "endpoints": self._endpoints()}
            case "STATS":
                counted = [asdict(statistics) for statistics in self.statistics]
                return common | {"started": self.started, "endpoints": counted}
            case _:
                return common

    def _endpoints(self) -> list[dict[str, object]]:
        return [
            {"name": each.name, "subject": each.subject, "queue_group": each.queue_group, "metadata": {}}
            for each in self.statistics
        ]
