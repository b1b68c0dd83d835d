"""Latency: a sample of the requests is timed, those that are not run what they ran before, and one that hangs is seen."""

import pytest

from services.write_cloning.volume import latency as latency_module
from services.write_cloning.volume.latency import INTERVAL_S, PAUSE_S, Latency
from services.write_cloning.volume.requests import Kind, Request
from shared.migration.states import State
from tests.support.stepping import Bench, finish


class Loop:
    """A loop's clock and timers, in the test's hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: object) -> None:
        self.timers.append((delay, callback))


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def timed(loop: Loop) -> Latency:
    return Latency(loop, lambda: None)  # type: ignore[arg-type]


def request_to(answered: list[Request]) -> Request:
    return Request(Kind.READ, 0, 512, answered.append)


def answer(latency: Latency, loop: Loop, took_s: float) -> None:
    request = request_to([])
    latency.begin(request)
    loop.now += took_s
    request.complete(request)


def test_mean_and_worst_are_of_the_interval_that_is_over(timed: Latency, loop: Loop) -> None:
    answer(timed, loop, 0.25)
    answer(timed, loop, 0.75)
    loop.now += INTERVAL_S
    sampled = timed.sampled()
    assert (sampled.samples, sampled.mean_s, sampled.worst_s) == (2, 0.5, 0.75)
    answer(timed, loop, 0.5)
    assert timed.sampled() is sampled  # the next interval is not over
    loop.now += INTERVAL_S
    assert timed.sampled().samples == 1
    loop.now += INTERVAL_S
    assert timed.sampled().samples == 0


def test_whoever_waits_for_the_request_is_answered_once_and_finds_it_as_it_was(
    timed: Latency, loop: Loop
) -> None:
    answered: list[Request] = []
    request = request_to(answered)
    complete = request.complete
    timed.begin(request)
    request.complete(request)
    assert answered == [request]
    assert request.complete == complete


def test_next_sample_is_taken_a_moment_later(timed: Latency, loop: Loop) -> None:
    answer(timed, loop, 0.001)
    assert loop.timers == [(PAUSE_S, timed.arm)]


def test_request_that_is_not_answered_counts_with_its_age(timed: Latency, loop: Loop) -> None:
    timed.begin(request_to([]))
    loop.now += INTERVAL_S / 2
    assert timed.sampled().samples == 0
    loop.now += 5
    assert timed.sampled().worst_s == pytest.approx(5 + INTERVAL_S / 2)


def test_pause_bounds_the_cost() -> None:
    assert latency_module.PAUSE_S >= 0.01  # at most a hundred samples a second, whatever the load


async def test_volume_times_a_write_until_both_sides_have_it() -> None:
    bench = Bench(State.SYNCING)
    first = bench.write()
    second = bench.write(offset=8192)
    assert (first.complete == second.complete) is False  # one at a time is timed
    await finish(bench.source, "write")
    assert bench.volume.write_latency._current.samples == 0
    await finish(bench.target, "write")
    assert bench.answered == [first]
    assert bench.volume.write_latency._current.samples == 1


async def test_volume_times_a_read_and_runs_the_others_as_before() -> None:
    bench = Bench(State.SETUP)
    plain = bench.volume._reads.start
    bench.read()
    assert bench.volume._read == plain
    await finish(bench.source, "read")
    assert bench.volume.read_latency._current.samples == 1
    bench.volume.read_latency.arm()
    assert bench.volume._read != plain
