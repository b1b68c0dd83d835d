"""Where the console's words go: people read sentences and tables; programs read JSON, and find nothing else.

Nothing here interprets markup: names and messages come from elsewhere.
"""

import os
import sys
from collections.abc import Callable

import orjson
from rich.console import Console, RenderableType

from services.console.failures import ConsoleError, as_document, message_of
from services.console.named_nats import is_of_installation, nats_of
from shared.config.load import ConfigError
from shared.migration.refusals import Code, Refusal
from shared.plain import plain

_HINTS = {
    Code.JOURNAL_AWAY: "`cutover up` starts one; --server or CUTOVER_NATS_URL names another.",
    Code.NOT_PERMITTED: "CUTOVER_CONFIG names the operator's configuration, or CUTOVER_NATS_NKEY_SEED_FILE his key.",
    Code.SERVICE_AWAY: "`cutover up` starts the services.",
    Code.CLIENTS_CONNECTED: "`cutover cleanup --disconnect` does it for you.",
}
# Of an installation with keys or TLS, in the place of those above: there `cutover up` mends nothing.
_HINTS_IN_INSTALLATION = {
    Code.JOURNAL_AWAY: "Start the NATS server of this installation, or see to the network; `cutover doctor` looks further.",
    Code.SERVICE_AWAY: "Start that service with its own file; `cutover doctor` says which ones are missing.",
}
PIPE_COLUMNS = 160  # of a table that no terminal limits


class Output:
    """One command's standard output and standard error."""

    def __init__(self, *, json: bool) -> None:
        """With `json`, sentences and tables are left out, and errors become objects."""
        self.json = json
        width = None if sys.stdout.isatty() else PIPE_COLUMNS
        self.people = Console(markup=False, emoji=False, highlight=False, quiet=json, width=width)
        self.aside = Console(markup=False, emoji=False, highlight=False, stderr=True)

    @property
    def is_live(self) -> bool:
        """Whether a person watches: lines may be drawn over."""
        return self.people.is_terminal and not self.json

    def say(self, text: str) -> None:
        """One line for people; the text may come from elsewhere."""
        self.people.print(plain(text), soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """A table or a styled text for people; whoever made it has made foreign text plain."""
        if self.people.is_terminal or self.json:
            self.people.print(renderable)
            return
        with self.people.capture() as captured:
            self.people.print(renderable)
        for line in captured.get().splitlines():  # without the blanks that fill the last column of a table
            self.people.print(line.rstrip(), soft_wrap=True)

    def note(self, text: str) -> None:
        """One line on standard error, with or without `--json`."""
        self.aside.print(plain(text), soft_wrap=True)

    def result(self, value: object) -> None:
        """One JSON document on a line of standard output, with `--json` only."""
        if self.json:
            sys.stdout.write(orjson.dumps(value, default=_as_json).decode() + "\n")
            sys.stdout.flush()

    def answer(self, value: object, for_people: Callable[[], RenderableType]) -> None:
        """The same answer, for whichever of the two reads."""
        if self.json:
            self.result(value)
        else:
            self.show(for_people())

    def error(self, error: ConsoleError | Refusal) -> None:
        """Say no: on standard error for people, on standard output for programs."""
        if self.json:
            self.result(as_document(error))
        else:
            hint = _hint(error) if isinstance(error, Refusal) else None
            self.note(f"{error.code}: {message_of(error)}{f' {hint}' if hint else ''}")


def _hint(refusal: Refusal) -> str | None:
    # A NATS that answers and lacks something else needs no other: its own words say what to do.
    if refusal.code is Code.JOURNAL_AWAY and "cannot be reached" not in refusal.message:
        return None
    in_installation = _HINTS_IN_INSTALLATION if _is_in_installation() else {}
    return in_installation.get(refusal.code) or _HINTS.get(refusal.code)


def _is_in_installation() -> bool:
    try:
        return is_of_installation(nats_of(os.environ))
    except ConfigError:
        return False  # which is what the command was refused for


def _as_json(value: object) -> object:
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
