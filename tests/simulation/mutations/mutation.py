"""One deliberate break of the product: a piece of its text, and what stands there instead."""

from dataclasses import dataclass
from pathlib import Path


class OutdatedMutationError(Exception):
    """The text that a mutation replaces is not there, or more than once: the product has changed, and the table must follow."""


@dataclass(frozen=True, slots=True)
class Change:
    """In the file `path`, `old` becomes `new`. `old` occurs exactly once."""

    path: str
    old: str
    new: str

    def mutated(self, content: str) -> str:
        """The file's content with this change in it.

        Raises:
            OutdatedMutationError: `old` does not occur exactly once.
        """
        if (count := content.count(self.old)) != 1:
            raise OutdatedMutationError(f"{self.path} has this text {count} times, not once: {self.old!r}")
        return content.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutation:
    """A break of one rule. `first_seed` is where to begin to look: it found this break once, and is only advice."""

    name: str
    rule: str
    why: str
    changes: tuple[Change, ...]
    first_seed: int = 0

    def apply(self, root: Path) -> None:
        """Break the product that stands below `root`.

        Raises:
            OutdatedMutationError: it is no longer written as the mutation expects it.
        """
        for change in self.changes:
            file = root / change.path
            file.write_text(change.mutated(file.read_text()))
