"""Progress: what has changed is told once, and what has not now and then."""

import asyncio
from dataclasses import replace

import pytest

from services.write_cloning import progress as progress_module
from services.write_cloning.progress import tell_progress
from shared.messages.status import HostView
from tests.support.staged import view


class Host:
    """Tells of one migration, each time at another time."""

    def __init__(self) -> None:
        self.looks = 0
        self.paused = False
        self.enough = asyncio.Event()

    def views(self) -> list[HostView]:
        self.looks += 1
        if self.looks == 5:
            self.enough.set()
        return [replace(view(paused=self.paused), at=f"look {self.looks}")]


class Told:
    def __init__(self) -> None:
        self.views: list[HostView] = []

    async def publish(self, subject: str, payload: HostView) -> None:
        assert subject == "cutover.progress.vol1"
        self.views.append(payload)


async def told_in_five_looks(host: Host) -> list[HostView]:
    told = Told()
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(tell_progress(host, told))  # type: ignore[arg-type]
        await host.enough.wait()
        telling.cancel()
    return told.views


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "INTERVAL_S", 0)


async def test_what_has_not_changed_is_told_once() -> None:
    assert [each.at for each in await told_in_five_looks(Host())] == ["look 1"]


async def test_what_has_not_changed_for_long_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "AGAIN_AFTER_S", 0)
    assert len(await told_in_five_looks(Host())) >= 4
