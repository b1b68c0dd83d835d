"""Commands that remedies name, as they have to be typed."""

import shlex
from pathlib import Path

from services.console.doctor.facts import Facts

SILENT_HOST = (
    "its log says what it did last; see whether it was stopped (SIGSTOP), or waits for a disk. Start no other, and do not kill "
    "it while applications use its volumes"
)


def start(facts: Facts, module: str, file: str) -> str:
    """How a module of ours is started; `file` is its configuration in the folder of an installation, if that is known."""
    if facts.installation is None:
        return f"python -P -m {module} with its configuration"
    return f"python -P -m {module} --config {shlex.quote(str(Path(facts.installation) / file))}"
