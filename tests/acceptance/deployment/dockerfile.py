"""The Dockerfile as typed objects. It has only instructions that are known here, and no shell: RUN and CMD are lists of words."""

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY: what is copied, from which stage (from the repository where none is named), and where to."""

    sources: tuple[str, ...]
    target: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """RUN, as the words that are executed."""

    words: tuple[str, ...]


@dataclass(slots=True)
class Stage:
    """One FROM and what follows."""

    base: str
    name: str
    steps: list[Copy | Run] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"

    @property
    def made_folders(self) -> list[str]:
        """The empty folders that `install -d` makes, which belong to the user that the image runs as."""
        made = [
            step.words for step in self.steps if isinstance(step, Run) and step.words[:2] == ("install", "-d")
        ]
        return [word for words in made for word in words[2:] if word.startswith("/")]


def read_dockerfile(file: Path) -> dict[str, Stage]:
    """The stages by name."""
    stages: dict[str, Stage] = {}
    for line in file.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(base, name)
        else:
            _add(list(stages.values())[-1], word, rest)
    return stages


def _add(stage: Stage, word: str, rest: str) -> None:
    match word:
        case "COPY":
            stage.steps.append(_copy(rest.split()))
        case "RUN":
            stage.steps.append(Run(tuple(json.loads(rest))))
        case "ENV":
            name, _, value = rest.partition("=")
            stage.environment[name] = value
        case "WORKDIR":
            stage.folder = rest
        case "USER":
            stage.user = rest
        case "CMD":
            json.loads(rest)
        case _:
            raise AssertionError(f"{word} is an instruction that nothing here looks at")


def _copy(words: list[str]) -> Copy:
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    return Copy(tuple(words[:-1]), words[-1], stage)
