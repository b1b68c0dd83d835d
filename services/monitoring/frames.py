"""What a browser is told of the picture: plain values for JSON, no more than it shows. Pure.

A row for each migration, for the list; the details of the one that is looked at; the feed; and what is around. A frame has what
changed after a version of the picture, or all of it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from services.monitoring.known import Known
from services.monitoring.picture import Picture
from services.monitoring.series import Point
from services.monitoring.stories import Story
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import FaultView, LatencyView
from shared.migration.devices import DeviceIdentity

Frame = dict[str, Any]

SERVICES: Mapping[str, str] = {
    "cutover-fault-recording": "fault_recording",
    "cutover-state-control": "state_control",
    "cutover-startup": "startup",
    HOST_SERVICE_NAME: "write_cloning",
}


def frame(picture: Picture, after: int | None, selected: str, now: float, *, is_new: bool = False) -> Frame:
    """What changed after a version; all of it where that is None, or longer ago than the picture remembers.

    The details of the one that is looked at are there as well when they have changed, or are asked for anew (`is_new`).
    """
    oldest_gone = picture.gone[0][0] if len(picture.gone) == picture.gone.maxlen else 0
    is_whole = after is None or not oldest_gone <= after <= picture.version
    since = 0 if is_whole or after is None else after
    told: Frame = {"epoch": picture.epoch, "version": picture.version, "now": now, "whole": is_whole}
    told["rows"] = [row(known) for known in picture.migrations.values() if known.version > since or is_whole]
    told["gone"] = [
        name for version, name in picture.gone if version > since and name not in picture.migrations
    ]
    told["events"] = [event_of(event.story) for event in picture.events if event.version > since]
    if picture.around.version > since or is_whole:
        told["around"] = around(picture)
    known = picture.migrations.get(selected)
    if known is not None and (known.version > since or is_new):
        told["detail"] = detail(known)
    return told


def row(known: Known) -> Frame:
    """One line of the list."""
    live, status, rates = known.live, known.status, known.series.last or Point(at=0.0)
    now = None if known.series.is_lost else live  # of what moves, what was told before says nothing
    size = live.size_bytes if live else status.size_bytes if status else 0
    comparison = (
        live.verification if live and live.verification and live.verification.outcome is None else None
    )
    return {
        "name": known.name,
        "state": known.state if known.is_state_known else "unknown",
        "authority": known.authority,
        "attempt": known.attempt,
        "flag": known.is_flagged,
        "faults": len(known.attempt_faults),
        "trouble": known.trouble,
        "closed": known.is_closed,
        "journal": known.journal_condition,
        "host": known.host,
        "size": size,
        "synced": live.synced_bytes if live else None,
        "remaining": live.remaining_bytes if live else None,
        "rate": now.rate_bytes_per_s if now else None,
        "eta": now.eta_s if now else None,
        "paused": live.paused if live else False,
        "pending": live.journal_pending if live else False,
        "unreadable": bool(live and live.unreadable_regions),
        "errors": bool(known.application_trouble),
        "compared": comparison.compared_bytes if comparison else None,
        "reads": rates.reads_per_s if live else None,
        "writes": rates.writes_per_s if live else None,
        "clients": len(live.connections) if live else None,
        "heard": known.heard,
    }


def detail(known: Known) -> Frame:
    """Everything about one migration."""
    return {
        "name": known.name,
        "uuid": known.uuid,
        **_live_detail(known),
        **_status_detail(known),
        "warnings": list(known.warnings),
        "points": [_point(point) for point in known.series.points],
        "faults": [fault_of(fault) for fault in known.faults],
        "fault_count": known.fault_count,
        "stories": [event_of(story) for story in known.history.stories] if known.history else None,
        "is_whole": known.history.is_whole if known.history else True,
        "view_heard": known.view_heard or None,
        "status_heard": known.status_heard or None,
    }


def _live_detail(known: Known) -> Frame:
    live = known.live
    if live is None:
        return {"live": False}
    rates = known.series.last or Point(at=0.0)
    return {
        "live": True,
        "at": live.at,
        "run": live.run,
        "decision": live.decision,
        "cells": live.region_cells,
        "throttle": live.throttle_bytes_per_s,
        "export": live.export_uri,
        "connections": [asdict(client) for client in live.connections],
        "engine": live.io_engine,
        "routing": asdict(live.routing),
        "resync": live.resync_bytes,
        "full_because": live.full_resync_because,
        "verified_at": live.verified_at,
        "needs_verify": live.needs_verify,
        "verification": asdict(live.verification) if live.verification else None,
        "unreadable_regions": live.unreadable_regions,
        "outstanding": live.outstanding_target_requests,
        "read_bytes": rates.read_bytes_per_s,
        "write_bytes": rates.write_bytes_per_s,
        "read_latency": None if known.series.is_lost else _latency(live.application_read_latency),
        "write_latency": None if known.series.is_lost else _latency(live.application_write_latency),
        "errors": live.application_trouble,
        "total_reads": live.application_reads,
        "total_writes": live.application_writes,
    }


def _status_detail(known: Known) -> Frame:
    status = known.status
    if status is None:
        return {"allowed": []}
    return {
        "source": _device(status.devices.source),
        "target": _device(status.devices.target),
        "allowed": list(status.allowed) if known.unlisted is None else [],
        "host_answers": status.host_answers,
    }


def _device(device: DeviceIdentity) -> Frame:
    return {"name": device.name, "kind": device.kind, "size": device.size_bytes}


def _latency(latency: LatencyView | None) -> Frame | None:
    return asdict(latency) if latency is not None else None


def _point(point: Point) -> list[float | None]:
    """Compact: three minutes of them go with every second."""
    return [
        round(point.at, 1),
        _rounded(point.copy_bytes_per_s, 0),
        _rounded(point.reads_per_s, 1),
        _rounded(point.writes_per_s, 1),
        point.read_latency_s,
        point.write_latency_s,
    ]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def fault_of(fault: FaultView) -> Frame:
    """One line of the fault log."""
    return {
        "attempt": fault.attempt,
        "side": fault.side,
        "state": fault.state,
        "operation": fault.operation,
        "cause": fault.cause,
        "offset": fault.offset,
        "length": fault.length,
        "detected_at": fault.detected_at,
        "recorded_at": fault.recorded_at,
    }


def event_of(story: Story) -> Frame:
    """One story."""
    return {
        "migration": story.migration,
        "index": story.index,
        "at": story.at,
        "tone": story.tone,
        "title": story.title,
        "text": story.text,
        "state": story.state,
        "trigger": story.trigger,
    }


def around(picture: Picture) -> Frame:
    """NATS, the services, the hosts, the journal."""
    known = picture.around
    return {
        "link": asdict(known.link),
        "certificate": known.certificate_not_after,
        "durability": asdict(known.durability),
        "services": [{"name": shown, "count": known.services.get(name)} for name, shown in SERVICES.items()],
        "hosts": [
            {
                **asdict(host),
                "migrations": sum(each.host == host.name for each in picture.migrations.values()),
            }
            for host in sorted(known.hosts.values(), key=lambda host: host.name)
        ],
        "warnings": list(known.warnings),
        "listed": known.listed,
    }
