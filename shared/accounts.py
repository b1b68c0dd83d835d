"""Users and groups that a configuration names, as this machine numbers them."""

import grp
import pwd
from enum import StrEnum


class Kind(StrEnum):
    """What an account is."""

    USER = "user"
    GROUP = "group"


class UnknownAccountError(Exception):
    """This machine has none of that name; the text names the key."""


def number_of(account: str | int | None, key: str, kind: Kind) -> int | None:
    """The number of an account that a key names, by name or by number; None where it names none.

    Raises:
        UnknownAccountError: there is none of that name.
    """
    if account is None or isinstance(account, int):
        return account
    if account.isascii() and account.isdecimal():
        return int(account)
    try:
        return pwd.getpwnam(account).pw_uid if kind is Kind.USER else grp.getgrnam(account).gr_gid
    except KeyError:
        raise UnknownAccountError(f"{key}: there is no {kind} named {account!r}") from None
