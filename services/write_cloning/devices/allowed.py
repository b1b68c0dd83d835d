"""Which paths and remote exports a host may open: glob patterns of absolute paths and of NBD URIs, from its config. Pure.

`*` and `?` stay within one folder, `**` crosses folders. Patterns are matched against the *real* path of a
file that is already open, so a symbolic link never leads out of them; a pattern that names a link matches
nothing. Patterns of URIs are matched against an export's canonical URI, with the real path of its socket.
"""

import re
from collections.abc import Sequence

REMOTE_PREFIXES = ("nbd://", "nbd+unix:///")


class AllowedPaths:
    """The patterns, ready to be asked."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Check and compile.

        Raises:
            ValueError: a pattern can never match a real path.
        """
        for pattern in patterns:
            if pattern.startswith(REMOTE_PREFIXES):
                continue
            if not pattern.startswith("/") or {"", ".", ".."} & set(pattern.split("/")[1:]):
                raise ValueError(
                    f"{pattern!r} is no pattern of absolute paths without '.', '..' and double slashes, nor of nbd:// URIs"
                )
        self.patterns = tuple(patterns)
        self._expressions = [re.compile(_translate(pattern), re.DOTALL) for pattern in patterns]

    def __str__(self) -> str:
        return ", ".join(self.patterns) or "nothing"

    def allows(self, name: str) -> bool:
        """Whether a path without links, as the kernel names it, or a canonical URI is allowed."""
        return any(expression.fullmatch(name) for expression in self._expressions)


_TOKEN = re.compile(r"\*\*|\*|\?|\[!?\]?[^]/]*\]|.", re.DOTALL)


def _translate(pattern: str) -> str:
    return "".join(_translate_token(token) for token in _TOKEN.findall(pattern))


def _translate_token(token: str) -> str:
    match token:
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case _ if len(token) > 1:
            negation = "^/" if token[1] == "!" else ""
            inside = token[2:-1] if negation else token[1:-1]
            return f"[{negation}{re.escape(inside).replace(chr(92) + '-', '-')}]"
        case _:
            return re.escape(token)
