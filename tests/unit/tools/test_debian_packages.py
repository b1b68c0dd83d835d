"""Missing Debian packages are installed by root, and named for anyone else."""

import subprocess
from pathlib import Path

import pytest

TOOL = Path("tools/debian-packages")

DPKG_QUERY = """#!/bin/sh
for package; do :; done
case $package in fio|strace) exit 1 ;; esac
printf installed
"""


@pytest.fixture
def run(tmp_path: Path, pytestconfig: pytest.Config) -> "Run":
    """A machine without fio and strace, whose apt-get only writes down what it was asked."""
    return Run(tmp_path, pytestconfig.rootpath / TOOL)


class Run:
    def __init__(self, folder: Path, tool: Path) -> None:
        self.folder = folder
        self.tool = tool
        self.add("dpkg-query", DPKG_QUERY)
        self.add("apt-get", f'#!/bin/sh\necho "$*" >>{folder}/apt\n')

    def add(self, name: str, script: str) -> None:
        program = self.folder / name
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)

    def __call__(self, purpose: str, user_id: int) -> subprocess.CompletedProcess[str]:
        self.add("id", f"#!/bin/sh\necho {user_id}\n")
        return subprocess.run(
            [self.tool, purpose],
            env={"PATH": f"{self.folder}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked_of_apt(self) -> str:
        asked = self.folder / "apt"
        return asked.read_text(encoding="utf-8") if asked.exists() else ""


def test_root_installs_what_is_missing_after_one_update(run: Run) -> None:
    result = run("test", user_id=0)
    assert result.returncode == 0
    update, install = run.asked_of_apt().splitlines()
    assert update.startswith("update")
    assert install.startswith("install")
    assert "--no-install-recommends" in install
    assert install.endswith(" fio strace")


def test_anyone_else_is_told_what_to_install(run: Run) -> None:
    result = run("test", user_id=1000)
    assert result.returncode == 1
    assert result.stderr == (
        "Debian packages are missing. Please install them as root:  apt-get install fio strace\n"
    )
    assert run.asked_of_apt() == ""


def test_nothing_is_done_when_nothing_is_missing(run: Run) -> None:
    result = run("venv", user_id=0)
    assert (result.returncode, result.stdout, run.asked_of_apt()) == (0, "", "")


def test_an_unknown_purpose_is_an_error(run: Run) -> None:
    assert run("tets", user_id=0).returncode == 2
