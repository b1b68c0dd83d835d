"""Requests that are no requests: not JSON, too large, with fields that there are not. Each is answered, and changes nothing."""

import json

import pytest

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.plain_client import Refused
from tests.acceptance.system.unchanged import nothing_changes
from tests.acceptance.system.whole_system import HOST, System

ADMISSION = f"cutover.startup.admit.{HOST}"  # carries every witness of a host: its bound is that of the message itself
ENDPOINTS = (
    *(f"cutover.control.{verb}.vol1" for verb in (
        "setup", "sync", "pause", "resume", "throttle", "select-target", "select-source", "commit", "abort", "cleanup",
        "query", "faults", "vouch",
    )),
    "cutover.control.list",
    "cutover.control.faults",
    f"cutover.decision.{HOST}.vol1",
    f"cutover.decision.repair.{HOST}.vol1",
    *(f"cutover.record.{what}.{HOST}.vol1" for what in ("flag-set", "flag-clear", "fault")),
    ADMISSION,
    *(f"cutover.host.{HOST}.{verb}.vol1" for verb in (
        "setup", "enter", "select-target", "select-source", "commit", "abort", "cleanup", "pause", "resume", "throttle",
        "status", "vouch",
    )),
    f"cutover.host.{HOST}.status",
)  # fmt: skip
MALFORMED = {
    "no JSON": b"{source: 1}",
    "cut short": b'{"operation_id": "x"',
    "no object": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "no text": b"\xff\xfe{}",
    "another type": b'{"operation_id": 7}',
    "nested deeply": b'{"operation_id":' + b"[" * 20000 + b"]" * 20000 + b"}",
}


def refused(system: System, subject: str, payload: bytes) -> Refused:
    """Send it in vain."""
    answer = system.client.ask(subject, payload)
    try:
        accepted = answer.accepted()
    except Refused as refusal:
        return refusal
    raise AssertionError(f"{subject} accepted {payload[:60]!r}: {accepted}")


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_request_is_refused_by_every_endpoint(system: System, pair: Pair, what: str) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        for subject in ENDPOINTS:
            refusal = refused(system, subject, MALFORMED[what])
            assert refusal.code == "bad-request", f"{subject}: {refusal}"
            assert "malformed" in refusal.message, subject


def test_unknown_field_is_refused_by_every_endpoint_naming_it_and_the_known_ones(
    system: System, pair: Pair
) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        for subject in ENDPOINTS:
            refusal = refused(system, subject, b'{"overwrite": true}')
            assert refusal.code == "bad-request", f"{subject}: {refusal}"
            assert "overwrite" in refusal.message, subject
            assert "The fields are: " in refusal.message, subject


def test_oversized_request_is_refused_by_every_endpoint_with_the_bound(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    payload = json.dumps({"operation_id": "x" * (64 << 10)}).encode()
    with nothing_changes(system):
        for subject in set(ENDPOINTS) - {ADMISSION}:
            refusal = refused(system, subject, payload)
            assert refusal.code == "too-large", f"{subject}: {refusal}"
            assert f"{len(payload)} bytes; at most " in refusal.message, subject


def test_request_of_almost_a_message_is_refused(system: System, pair: Pair) -> None:
    """The largest that the NATS server lets through at all."""
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        refusal = refused(system, "cutover.control.sync.vol1", b"x" * ((1 << 20) - 1))
    assert refusal.code == "too-large"


def test_misspelt_setup_field_is_refused_before_anything_is_opened(system: System, pair: Pair) -> None:
    request = {"source": str(pair.source), "target": str(pair.target), "overwrite-target": True}
    with nothing_changes(system, pair.source, pair.target):
        refusal = refused(system, "cutover.control.setup.vol1", json.dumps(request).encode())
    assert refusal.code == "bad-request"
    assert "overwrite-target" in refusal.message
    assert "overwrite_target" in refusal.message


@pytest.mark.parametrize("limit", [0, -1, 1.5, "50MiB/s", 1 << 60, True])
def test_throttle_that_is_none_is_refused(system: System, pair: Pair, limit: object) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        refusal = system.client.refused("throttle", "vol1", bytes_per_s=limit)
    assert refusal.code == "bad-request"
    assert "bytes_per_s" in refusal.message


@pytest.mark.parametrize("operation_id", ["", "a b", "x" * 101, "startup:set:1", "é"])
def test_bad_operation_id_is_refused_with_the_rule(system: System, pair: Pair, operation_id: str) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        refusal = system.client.refused("sync", "vol1", operation_id=operation_id)
    assert refusal.code == "bad-request"
    assert "operation_id" in refusal.message


def test_error_reply_carries_the_micro_service_headers(system: System) -> None:
    refusal = system.client.refused("query", "nobody")
    assert refusal.headers["Nats-Service-Error-Code"] == "unknown-migration"
    assert refusal.headers["Nats-Service-Error"] == refusal.message
