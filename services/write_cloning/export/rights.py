"""Who may open a Unix socket: its owner, and a group if one is named. At no moment anyone else.

The file comes into being with the narrowest rights, this user's. The group's are added once it is that group's file, and the
owner comes last.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.write_cloning.export.errors import SocketRightsError
from shared.accounts import Kind, UnknownAccountError, number_of

_OWNER_ALONE = stat.S_IRUSR | stat.S_IWUSR
_WITH_GROUP = _OWNER_ALONE | stat.S_IRGRP | stat.S_IWGRP
_UNCHANGED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Given to a socket's file; what is None stays as it is."""

    owner: int | None = None
    group: int | None = None

    def grant(self, path: Path) -> None:
        """Give them to a socket that was bound and does not listen yet.

        Raises:
            SocketRightsError: this process may not.
        """
        if self.owner is None and self.group is None:
            return
        # Not by its path: somebody who may write to the folder could have put another file there meanwhile.
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            if not stat.S_ISSOCK(os.fstat(opened).st_mode):
                raise SocketRightsError(f"{path}: somebody has put something else there")
            self._give(f"/proc/self/fd/{opened}")
        finally:
            os.close(opened)

    def _give(self, opened: str) -> None:
        if self.group is not None:
            with _told(f"nbd.socket_group: this process may not give the socket to group {self.group}"):
                os.chown(opened, _UNCHANGED, self.group)
                os.chmod(opened, _WITH_GROUP)  # noqa: PTH101 - a name for an open file, not a path
        if self.owner is not None:
            with _told(f"nbd.socket_owner: this process may not give the socket to user {self.owner}"):
                os.chown(opened, self.owner, _UNCHANGED)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SocketRightsError(f"{what}: {error.strerror}") from error


NOBODY_ELSE = Rights()


def rights_for(owner: str | int | None, group: str | int | None) -> Rights:
    """The rights of those who are named, by name or by number.

    Raises:
        SocketRightsError: there is none of that name.
    """
    try:
        return Rights(
            owner=number_of(owner, "nbd.socket_owner", Kind.USER),
            group=number_of(group, "nbd.socket_group", Kind.GROUP),
        )
    except UnknownAccountError as error:
        raise SocketRightsError(str(error)) from None
