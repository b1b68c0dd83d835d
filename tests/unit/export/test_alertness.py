"""How long a loop stays awake, and when it does not."""

from collections.abc import Callable

from services.write_cloning.export.alertness import AWAKE_S, FEW, UNTRIED_AFTER_A_MISS, Alertness


class Loop:
    """A loop that is turned by hand, with a clock of its own."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.calls = 0
        self._ready: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.calls += 1
        self._ready.append(callback)

    def would_sleep(self) -> bool:
        return not self._ready

    def turn(self, after_s: float = 0.0) -> None:
        self.time_s += after_s
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()


def made() -> tuple[Loop, Alertness]:
    loop = Loop()
    return loop, Alertness(loop, lambda: loop.time_s)


def test_it_stays_awake_for_as_long_as_something_may_come() -> None:
    loop, alertness = made()
    assert loop.would_sleep()
    alertness.expect(1)
    loop.turn(AWAKE_S * 0.9)
    assert not loop.would_sleep()
    loop.turn(AWAKE_S * 0.2)
    assert loop.would_sleep()


def test_what_comes_meanwhile_keeps_it_awake() -> None:
    loop, alertness = made()
    for _ in range(10):
        alertness.expect(1)
        loop.turn(AWAKE_S * 0.9)
        assert not loop.would_sleep()


def test_it_looks_once_in_each_iteration_whoever_expects_something() -> None:
    loop, alertness = made()
    for _ in range(10):
        alertness.expect(1)
    assert loop.calls == 1


def test_after_looking_in_vain_some_are_not_tried() -> None:
    loop, alertness = made()
    alertness.expect(1)
    loop.turn(AWAKE_S)
    for _ in range(UNTRIED_AFTER_A_MISS):
        alertness.expect(1)
        assert loop.would_sleep()
    alertness.expect(1)
    assert not loop.would_sleep()


def test_nobody_stays_awake_where_many_requests_are_under_way() -> None:
    loop, alertness = made()
    alertness.expect(FEW + 1)
    assert loop.would_sleep()
    alertness.expect(FEW)
    assert not loop.would_sleep()
