"""A symbolic link that leads elsewhere a moment later: what was checked is what is used, and what is recorded is kept to."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.system.devices import MIB, digest, full_file, is_free
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Refused
from tests.acceptance.system.whole_system import CLONING, HOST, System

ROUNDS = 40


@contextmanager
def swapped_to_and_fro(link: Path, *places: Path) -> Iterator[None]:
    """Let a link lead to each of some places in turn, as fast as it goes."""
    stop = threading.Event()

    def swap() -> None:
        aside = link.with_suffix(".aside")
        while not stop.is_set():
            for place in places:
                aside.symlink_to(place)
                os.replace(aside, link)  # noqa: PTH105 - the call that is meant: atomic

    link.symlink_to(places[0])
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        yield
    finally:
        stop.set()
        swapping.join(10)


def test_target_swapped_during_setup_is_never_one_that_is_not_allowed(system: System, pair: Pair) -> None:
    """Accepted is only what leads to the allowed file when it is opened; the forbidden one is never locked or written."""
    forbidden = full_file(system.folder / "forbidden-target.img", 4 * MIB, seed=9)
    before = digest(forbidden)
    link = pair.target.parent / "link.img"
    codes = set()
    with swapped_to_and_fro(link, pair.target, forbidden):
        for number in range(ROUNDS):
            name = f"vol{number}"
            try:
                system.set_up(name, pair.source, link)
            except Refused as refusal:
                codes.add(refusal.code)
                continue
            assert is_free(forbidden)
            assert not is_free(pair.target)
            inode = pair.target.stat().st_ino
            assert system.client.query(name)["devices"]["target"]["token"].split(":")[2] == str(inode)
            system.clean_up(name)
    assert codes == {"device-not-allowed"}
    assert digest(forbidden) == before
    assert is_free(forbidden)


def test_source_swapped_to_the_target_during_setup_is_never_both(system: System, pair: Pair) -> None:
    """Both sides by one inode would be found the same, or locked the second time."""
    link = pair.source.parent / "link.img"
    with swapped_to_and_fro(link, pair.source, pair.target):
        for number in range(ROUNDS):
            name = f"vol{number}"
            try:
                system.set_up(name, link, pair.target)
            except Refused as refusal:
                assert refusal.code in {"same-device", "device-busy"}  # noqa: PT017 - either may be accepted
                continue
            tokens = {side: each["token"] for side, each in system.client.query(name)["devices"].items()}
            assert tokens["source"] != tokens["target"]
            system.clean_up(name)


def test_link_swapped_while_the_host_was_down_keeps_the_volume_closed(
    stoppable_system: System,
) -> None:
    """The recorded name leads to another device now. It is refused by what it was and is, and not written to."""
    system = stoppable_system
    pair = make_pair(system)
    other = full_file(pair.target.parent / "other.img", 4 * MIB, seed=7)
    link = pair.target.parent / "link.img"
    link.symlink_to(pair.target)
    system.set_up("vol1", pair.source, link)
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    link.unlink()
    link.symlink_to(other)
    before = digest(other)
    system.start_service(CLONING)
    closed = system.host_status()["closed"]
    assert [each["code"] for each in closed] == ["device-changed"]
    assert str(link) in closed[0]["message"]
    assert str(pair.target.stat().st_ino) in closed[0]["message"]
    assert str(other.stat().st_ino) in closed[0]["message"]
    assert "link.img" in system.client.query("vol1")["host_error"]
    assert system.client.refused("select-target", "vol1").code == "not-admitted"
    assert digest(other) == before
    assert is_free(other)
    assert is_free(pair.source)
    # Brought back under its name, it goes on.
    assert system.stop_service(CLONING) == 0
    link.unlink()
    link.symlink_to(pair.target)
    system.start_service(CLONING)
    assert system.client.until_state("vol1", "source-selected")["host"] == HOST
