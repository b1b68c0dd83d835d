"""Builds the image's folder as the Dockerfile says, without an engine: each step of the stage `build`, at the very paths."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.deployment.dockerfile import Copy, Run, Stage

STEP_TIMEOUT_S = 300.0
_SYSTEM = ("/usr", "/etc")
# In the base image it is called `python`; Debian's own has no such name.
_PYTHON = f"{sys.base_prefix}/bin/python3"


def in_context(root: Path, source: str) -> bool:
    """Whether a file or folder of the repository is sent to the builder: .dockerignore excludes all but what it names."""
    first, *lines = [
        line for line in (root / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    assert first == "*"
    return f"!{source.rstrip('/')}" in lines


def build(root: Path, stage: Stage, folder: Path) -> Path:
    """Carry out a stage's steps; returns what it has made of /opt/cutover."""
    for each in ("src", "build", "opt"):
        (folder / each).mkdir()
    for step in stage.steps:
        match step:
            case Copy():
                _copy(root, step, folder / "src")
            case Run():
                _run(step.words, stage, folder)
    return folder / "opt" / "cutover"


def _copy(root: Path, step: Copy, target: Path) -> None:
    for source in step.sources:
        assert in_context(root, source), f".dockerignore keeps {source} from the builder"
        place = (
            target / step.target / Path(source).name if step.target.endswith("/") else target / step.target
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        if (root / source).is_dir():
            shutil.copytree(root / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(root / source, place)


def _run(words: tuple[str, ...], stage: Stage, folder: Path) -> None:
    words = (_PYTHON, *words[1:]) if words[0] == "python" else words
    variables = [word for name, value in stage.environment.items() for word in ("--setenv", name, value)]
    done = subprocess.run(
        ["bwrap", *_file_system(folder), *variables, "--chdir", stage.folder, "--", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


def _file_system(folder: Path) -> Iterator[str]:
    for each in ("bin", "sbin", "lib", "lib64"):
        yield from ("--symlink", f"usr/{each}", f"/{each}")
    for each in (*_SYSTEM, sys.base_prefix):
        yield from ("--ro-bind", each, each)
    for each in ("src", "build", "opt"):
        yield from ("--bind", str(folder / each), f"/{each}")
    yield from ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--setenv", "HOME", "/tmp")
    # What pip has downloaded before, which an engine's builder has not.
    cache = Path(os.environ.get("PIP_CACHE_DIR", "~/.cache/pip")).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    yield from ("--bind", str(cache), "/tmp/pip", "--setenv", "PIP_CACHE_DIR", "/tmp/pip")
    yield from ("--unsetenv", "VIRTUAL_ENV", "--setenv", "PATH", f"{sys.base_prefix}/bin:/usr/bin:/bin")
