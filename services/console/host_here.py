"""The host on this machine, asked where NATS cannot be: by the socket in its state directory.

Who is asked is found by a configuration that names a host, or by the folder of `cutover up`. What it says is a status as ever.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from services.console.listing import list_table
from services.console.options import CONNECT_TIMEOUT_S
from services.console.output import Output
from services.console.running import usual_state_dir
from services.console.services_config import one_line
from services.console.state_directory import StateDirectory
from services.console.views import status_view
from shared.config.load import ConfigError, load
from shared.messages.codec import decode_reply
from shared.messages.local import LOCAL_BYTES_MAX, LocalStatus, local_socket
from shared.messages.status import MigrationStatus
from shared.migration.refusals import Code, Refusal

ASK_TIMEOUT_S = 2.0
NATS_TIMEOUT_S = 2.0  # with a host that can be asked instead, NATS is waited for no longer
_PART_BYTES = 1024 * 1024

_AWAY = {
    Code.JOURNAL_AWAY: "NATS is away",
    Code.SERVICE_AWAY: "State control is away",
    Code.NOT_PERMITTED: "NATS does not permit it",
}
_WHERE_TO_ASK = (
    "On a host's machine, as its user or root, `cutover query` and `list` ask the host itself: --config or CUTOVER_CONFIG names "
    "its configuration, --state-dir its state directory."
)


class HostHere:
    """The host that can be asked, if there is one."""

    def __init__(self, state_dir: Path | None, config: Path | None, out: Output) -> None:
        """As the options say; by their defaults otherwise."""
        self._out = out
        self._own_word: LocalStatus | None = None
        self._has_asked = self._is_said = False
        self._trouble = ""
        self._sockets = tuple(filter(_is_socket, self._places(state_dir, config)))

    def _places(self, state_dir: Path | None, config: Path | None) -> Iterator[Path]:
        folder = StateDirectory((state_dir or usual_state_dir()).absolute())
        try:
            host = load(config, os.environ).host if config is not None else None
        except ConfigError as error:  # NATS can be asked all the same, if that section is well
            self._trouble, host = one_line(error), None
            self._out.note(self._trouble)
        if host is not None and state_dir is None:
            yield local_socket(Path(host.state_dir))
        yield local_socket(folder.host)  # where `cutover up` keeps it
        yield local_socket(folder.path)

    @property
    def nats_timeout_s(self) -> float:
        """How long a connection to NATS is waited for."""
        return NATS_TIMEOUT_S if self._sockets else CONNECT_TIMEOUT_S

    def better(self, listed: MigrationStatus) -> MigrationStatus:
        """What the host on this machine says of one, where NATS did not reach that host; else what was told."""
        if listed.host_answers or (told := self._word_of(listed.host)) is None:
            return listed
        return next((each for each in told.migrations if each.name == listed.name), listed)

    def _word_of(self, host: str) -> LocalStatus | None:
        """What the host of that name says, if it is the one here; asked once, and said."""
        if not self._has_asked and self._sockets:
            self._has_asked = True
            with suppress(Refusal):  # then nobody is here
                self._own_word = _first_answer(
                    self._sockets, lambda why: Refusal(Code.HOST_AWAY, " ".join(why))
                )
        told = self._own_word
        if told is None or told.host != host:
            return None
        if not self._is_said:
            self._is_said = True
            self._out.say(
                f"NATS does not reach host {host}. This is what it says on this machine. {_knows(told)}."
            )
        return told

    def tell_one(self, name: str, refusal: Refusal, out: Output) -> None:
        """Tell how a migration is, in place of a refusal.

        Raises:
            Refusal: the same, and why there is nothing in its place.
        """
        told = self._told(refusal)
        status = next((each for each in told.migrations if each.name == name), None)
        if status is None:
            why = next((each.message for each in told.closed if each.name == name), told.sentence)
            raise _more(refusal, f"Host {told.host} on this machine does not have {name} open: {why}")
        out.say(_head(told, refusal))
        out.answer(status, lambda: status_view(status))

    def tell_all(self, refusal: Refusal, out: Output) -> None:
        """Tell how all migrations of the host are, likewise."""
        told = self._told(refusal)
        out.say(_head(told, refusal))
        out.result(told.migrations)
        if told.migrations:
            out.show(list_table(told.migrations))
        else:
            out.say(f"It has no volume open: {told.sentence}")
        for closed in told.closed:
            out.say(f"{closed.name} is closed: {closed.message}")

    def _told(self, refusal: Refusal) -> LocalStatus:
        if refusal.code not in _AWAY:
            raise refusal
        if not self._sockets:
            raise _more(refusal, self._trouble, _WHERE_TO_ASK)
        return _first_answer(self._sockets, lambda why: _more(refusal, *why))


def _first_answer(sockets: Sequence[Path], otherwise: Callable[[list[str]], Refusal]) -> LocalStatus:
    why = []
    for path in sockets:
        try:
            return ask(path)
        except OSError as error:
            why.append(f"The host on this machine does not answer either: {path}: {error}.")
        except Refusal as refusal:
            why.append(f"{path}: {refusal.message}")
    raise otherwise(why)


def ask(path: Path) -> LocalStatus:
    """What the host says.

    Raises:
        OSError: nobody answers there, or we may not ask.
        Refusal: (`internal`) what answers is no host, or was too slow.
    """
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(ASK_TIMEOUT_S)
        asking.connect(os.fspath(path))
        while len(answer) <= LOCAL_BYTES_MAX and (part := asking.recv(_PART_BYTES)):
            answer += part
    return decode_reply(LocalStatus, bytes(answer))


def _head(told: LocalStatus, refusal: Refusal) -> str:
    """Who does not answer, who does, and what that cannot tell."""
    who = f"This is what host {told.host} on this machine says"
    return f"{_AWAY[refusal.code]}: {refusal.message} {who}. {_knows(told)}. What the journal holds is not known."


def _knows(told: LocalStatus) -> str:
    """What the host knows of NATS."""
    if not told.nats_is_away:
        return "Its own connection to NATS has not broken"
    if told.nats_lost_at is not None:
        return f"It has had no connection to NATS since {told.nats_lost_at}"
    return "It has not been connected to NATS since it was started"


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:  # whoever may not look may not ask either
        return False


def _more(refusal: Refusal, *sentences: str) -> Refusal:
    """The same refusal, with more to say."""
    return Refusal(refusal.code, " ".join((refusal.message, *filter(None, sentences))), refusal.allowed)
