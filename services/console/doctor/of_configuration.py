"""Checks of the configuration: that it can be read, and does not contradict itself."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts
from services.console.doctor.findings import Finding, failure, ok, warning
from shared.config.model import HostConfig

JOURNAL_WAIT_S = 10.0  # that a clean stop gives the journal
IO_TIMEOUT_SHORT_S = 1.0


def readable(facts: Facts) -> Iterator[Finding]:
    """Whether the configuration can be read, with every mistake."""
    if facts.config is None:
        yield failure(f"{facts.config_name}: {'; '.join(facts.mistakes)}", "mend these keys")
    elif facts.config.host is None:
        yield ok(f"{facts.config_name}; it makes no host of this machine, so nothing is looked at on it")
    else:
        yield ok(f"{facts.config_name}, host {facts.config.host.name}")


def time_outs(facts: Facts) -> Iterator[Finding]:
    """Whether the time-outs of a host fit each other."""
    host = facts.config.host if facts.config is not None else None
    if host is None:
        return
    contradictions = list(_contradictions(host))
    yield from contradictions
    if not contradictions:
        yield ok(
            f"io {host.io_timeout_s:g} s, stop {host.shutdown_timeout_s:g} s, flush of the target every "
            f"{host.target_flush_interval_s:g} s"
        )


def _contradictions(host: HostConfig) -> Iterator[Finding]:
    # A target that hangs is given up once while requests are finished, and may hang again in the last flush.
    needed_s = 2 * host.io_timeout_s + JOURNAL_WAIT_S
    stop = f"host.shutdown_timeout_s ({host.shutdown_timeout_s:g} s)"
    if host.shutdown_timeout_s <= host.io_timeout_s:
        yield failure(
            f"{stop} is over before a device that hangs is given up (host.io_timeout_s, {host.io_timeout_s:g} s): no such "
            "stop is clean",
            f"set host.shutdown_timeout_s to {needed_s:g} or more",
        )
    elif host.shutdown_timeout_s < needed_s:
        yield warning(
            f"{stop} leaves no time for a target that hangs ({host.io_timeout_s:g} s, twice) and for the journal "
            f"({JOURNAL_WAIT_S:g} s)",
            f"set host.shutdown_timeout_s to {needed_s:g} or more",
        )
    if host.target_flush_interval_s > host.io_timeout_s:
        yield warning(
            f"what is written in host.target_flush_interval_s ({host.target_flush_interval_s:g} s) has to be flushed within "
            f"host.io_timeout_s ({host.io_timeout_s:g} s), or the target is taken for one that hangs",
            f"set host.target_flush_interval_s to {host.io_timeout_s:g} or less",
        )
    if host.io_timeout_s < IO_TIMEOUT_SHORT_S:
        yield warning(
            f"a device that is only busy for host.io_timeout_s ({host.io_timeout_s:g} s) is taken for one that hangs",
            f"set host.io_timeout_s to {IO_TIMEOUT_SHORT_S:g} or more",
        )
