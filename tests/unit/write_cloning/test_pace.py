"""The rate of a job that gets on in pieces: as true for one piece in a minute as for hundreds in a second."""

import pytest

from services.write_cloning.pace import Pace

PIECE = 1 << 20


class Clocked:
    """A job whose clock the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("services.write_cloning.pace._now", lambda: self.now)
        self.pace = Pace()

    async def work(self, every_s: float, pieces: int) -> None:
        for _ in range(pieces):
            await self.pace.going()
            self.now += every_s
            self.pace.add(PIECE)

    def rates(self, seconds: float, steps: int = 20) -> list[float]:
        """At moments until so long from now."""
        began, told = self.now, []
        for step in range(steps):
            self.now = began + seconds * step / steps
            told.append(self.pace.rate_bytes_per_s())
        self.now = began
        return told


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    return Clocked(monkeypatch)


@pytest.mark.parametrize("every_s", [0.01, 1.0, 3.4, 60.0])
async def test_steady_job_has_the_rate_of_its_pieces_at_every_moment(job: Clocked, every_s: float) -> None:
    """Cause: the rate was that of the last four seconds, in which a job throttled to 300 KiB/s ends one piece or none.

    Failing, it is told as 0 bytes/s, with no end in sight, though bytes move.
    """
    await job.work(every_s, 1000 if every_s < 1 else 6)
    assert job.rates(every_s) == pytest.approx([PIECE / every_s] * 20, rel=0.02)


async def test_first_piece_counts(job: Clocked) -> None:
    await job.work(60.0, 1)
    assert job.pace.rate_bytes_per_s() == pytest.approx(PIECE / 60)


async def test_job_that_stands_still_comes_to_nothing(job: Clocked) -> None:
    await job.work(0.1, 100)
    job.now += 10
    assert job.pace.rate_bytes_per_s() < 0.05 * PIECE / 0.1
    job.now += 1000
    assert job.pace.rate_bytes_per_s() < 0.001 * PIECE / 0.1


async def test_what_was_before_a_pause_does_not_count(job: Clocked) -> None:
    await job.work(0.1, 100)
    job.pace.pause()
    assert job.pace.rate_bytes_per_s() == 0
    job.now += 100
    job.pace.resume()
    await job.work(1.0, 1)
    assert job.pace.rate_bytes_per_s() == pytest.approx(PIECE)


async def test_memory_is_bounded_by_the_window(job: Clocked) -> None:
    await job.work(0.5, 1000)
    assert len(job.pace._samples) < 20
