"""How a job that was interrupted goes on: the command line that finds the same migration again, and harms nothing.

The danger is another migration in place of the same one: it would copy the old source over a target that was committed
to. So the line names the services that were used, whatever the environment of the next shell says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from services.console.command_line import Replacement
from shared.config.urls import without_secrets


@dataclass(slots=True, kw_only=True)
class GoingOn:
    """What has become of a job so far, as far as it decides how to go on."""

    name: str
    write: Callable[
        [Mapping[str, Replacement]], str
    ]  # the job's own command line, with some options replaced
    options: Mapping[str, Replacement]  # those that do not stay as they were given: names and absolute paths
    where: dict[str, str] = field(default_factory=dict)  # the services in use; empty until there are any
    is_begun: bool = False  # the migration is there, or its set-up has been asked for
    is_ending: bool = False  # its cleanup has been asked for

    @property
    def line(self) -> str:
        """The command line that goes on."""
        replaced: dict[str, Replacement] = {**self.options, **self.where}
        if self.is_begun:
            # The consent was for what the target held before. Should the migration be cleaned up before the line is
            # given, it sets up a new one, and then the target holds what was committed.
            replaced |= {"overwrite_target": None}
        server = replaced.get("server")
        if isinstance(server, str):
            replaced |= {"server": without_secrets(server)}
        return self.write(replaced)

    @property
    def advice(self) -> str:
        """What to tell after an interruption."""
        if not self.where:
            return f"Nothing was done for {self.name} yet."
        if self.is_ending:
            # No line: if the name is free again, it would begin anew.
            return f"The cleanup of {self.name} was asked for; `cutover list` tells whether it is done."
        login = "@" in urlsplit(self.where.get("server", "")).netloc
        hidden = " (user and password of the server are left out)" if login else ""
        return f"{self.name} stays as it is, and nothing is lost. Go on with{hidden}: {self.line}"
