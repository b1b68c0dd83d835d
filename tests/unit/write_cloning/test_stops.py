"""What the log says of a stop: that it was not clean must not be missed by who reads warnings alone."""

import logging
from dataclasses import dataclass
from typing import cast

import pytest

from services.write_cloning.host import Host
from services.write_cloning.migration import Migration
from services.write_cloning.surroundings import Surroundings


@dataclass
class Stopping:
    """A migration that is being stopped."""

    name: str
    is_clean: bool

    async def stop(self) -> bool:
        return self.is_clean


@pytest.mark.parametrize(("is_clean", "level"), [(True, "INFO"), (False, "WARNING")])
async def test_volume_that_was_not_closed_cleanly_is_a_warning(
    *, is_clean: bool, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    host = Host(cast(Surroundings, None))
    host._migrations["vol1"] = cast(Migration, Stopping("vol1", is_clean))
    assert await host.stop() is is_clean
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == ("closed" if is_clean else "closed, but not cleanly")


async def test_migration_that_is_let_go_of_meanwhile_keeps_no_other_from_it() -> None:
    """A clean-up that came on record while devices were being closed broke the loop over them: the rest stayed open."""
    host = Host(cast(Surroundings, None))
    released = []

    @dataclass
    class Releasing:
        name: str

        async def release(self) -> None:
            released.append(self.name)
            host._migrations.pop("vol2", None)

    for name in ("vol1", "vol2", "vol3"):
        host._migrations[name] = cast(Migration, Releasing(name))
    await host.release()
    assert released[-1] == "vol3"
