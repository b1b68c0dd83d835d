"""`cutover --version`: that of the installed package, which is what services tell, too."""

import tomllib
from pathlib import Path

import pytest

from services.console.application import run
from shared.bus.interface import SERVICE_VERSION

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_it_is_the_version_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    version = tomllib.loads(PROJECT.read_text())["project"]["version"]
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cutover {version}\n"
    assert version == SERVICE_VERSION
