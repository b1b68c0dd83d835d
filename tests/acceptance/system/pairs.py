"""Sources and targets, in folders of their own."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.system.devices import MIB, empty_file, full_file
from tests.acceptance.system.whole_system import System


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files that suit each other."""

    source: Path
    target: Path


def make_pair(system: System, name: str = "pair", *, size_bytes: int = 4 * MIB) -> Pair:
    """A source with data and an empty target, in a folder of their own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name.partition('[')[0]}-", dir=system.data))
    source = full_file(folder / "source.img", size_bytes, seed=1)
    return Pair(source, empty_file(folder / "target.img", size_bytes))
