"""Who may open a Unix socket, and that there is no moment at which anyone else may."""

import grp
import os
import pwd
import stat
import sys
from pathlib import Path

import pytest

from services.write_cloning.export.errors import SocketRightsError
from services.write_cloning.export.listener import listen_unix
from services.write_cloning.export.rights import NOBODY_ELSE, Rights, rights_for
from tests.integration.export.harness import run

SOMEBODY = 4242


def told(path: Path) -> tuple[int, int, int]:
    """Mode, owner and group."""
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_names_and_numbers_are_understood() -> None:
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    assert rights_for(user.pw_name, group.gr_name) == Rights(owner=user.pw_uid, group=group.gr_gid)
    assert rights_for(7, "8") == Rights(owner=7, group=8)
    assert rights_for(None, None) == NOBODY_ELSE


def test_names_of_nobody_are_told_by_key() -> None:
    with pytest.raises(SocketRightsError, match="socket_owner: there is no user named 'nosuch'"):
        rights_for("nosuch", None)
    with pytest.raises(SocketRightsError, match="socket_group: there is no group named 'nosuch'"):
        rights_for(None, "nosuch")


def test_socket_is_its_owners_alone(short_path: Path) -> None:
    listener = listen_unix(short_path / "s")
    assert told(short_path / "s") == (0o600, os.getuid(), os.getgid())
    listener.close()


def test_group_may_open_it_if_one_is_named(short_path: Path) -> None:
    listener = listen_unix(short_path / "s", Rights(group=os.getgid()))
    assert told(short_path / "s") == (0o660, os.getuid(), os.getgid())
    listener.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("owner", [None, SOMEBODY])
@pytest.mark.parametrize("group", [None, SOMEBODY])
@pytest.mark.parametrize("mask", [0, 0o22, 0o777])
def test_at_no_moment_may_others_open_it(
    short_path: Path, owner: int | None, group: int | None, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at before every step, and at the end; and it does not listen before the last."""
    path, seen = short_path / "s", []

    def watched(step: str) -> None:
        original = getattr(os, step)

        def do(*arguments: object) -> None:
            seen.append(told(path))
            original(*arguments)

        monkeypatch.setattr(os, step, do)

    watched("chown")
    watched("chmod")
    before = os.umask(mask)
    try:
        listener = listen_unix(path, Rights(owner=owner, group=group))
    finally:
        os.umask(before)
    seen.append(told(path))
    us = os.getuid(), os.getgid()
    for mode, uid, gid in seen:
        assert not mode & 0o117, oct(mode)
        assert not mode & 0o060 or gid == group, "before it is the group's, the group may do nothing"
        assert uid in {us[0], owner}
        assert gid in {us[1], group}
    expected = 0o600 & ~mask if group is None else 0o660
    assert seen[-1] == (expected, us[0] if owner is None else owner, us[1] if group is None else group)
    assert len(seen) == 1 + (owner is not None) + 2 * (group is not None)
    listener.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("whose", ["owner", "group"])
async def test_what_this_process_may_not_give_is_told_by_key_and_leaves_no_socket(
    short_path: Path, whose: str
) -> None:
    """In a process that may not do what root may."""
    script = (
        "from pathlib import Path\n"
        "from services.write_cloning.export.listener import listen_unix\n"
        "from services.write_cloning.export.rights import Rights\n"
        f"listen_unix(Path('{short_path}/s'), Rights({whose}={SOMEBODY}))\n"
    )
    said = await run("setpriv", "--bounding-set=-chown", sys.executable, "-c", script, expect=1)
    assert f"nbd.socket_{whose}: this process may not give the socket to" in said
    assert "Operation not permitted" in said
    assert not (short_path / "s").exists()


def test_file_that_was_put_there_meanwhile_is_left_alone(short_path: Path) -> None:
    """By somebody who may write to the folder: a link to a file of ours, say."""
    precious = short_path / "precious"
    precious.touch(mode=0o600)
    (short_path / "s").symlink_to(precious)
    with pytest.raises((SocketRightsError, OSError)):
        Rights(group=os.getgid()).grant(short_path / "s")
    (short_path / "s").unlink()
    (short_path / "s").hardlink_to(precious)
    with pytest.raises(SocketRightsError, match="something else"):
        Rights(group=os.getgid()).grant(short_path / "s")
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600
