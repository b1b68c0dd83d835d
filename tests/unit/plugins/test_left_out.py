"""Tests that a machine cannot run are left out, with a sentence, and only those."""

from pathlib import Path

import pytest

from tests.plugins import left_out

MARKED = "import pytest\n@pytest.mark.nats_cli\ndef test_marked(): pass\ndef test_plain(): pass"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A small project with a marked test and a plain one."""
    pytester.makepyprojecttoml(
        "[tool.pytest]\nmarkers = ['nats_cli']\nasyncio_default_fixture_loop_scope = 'function'"
    )
    pytester.makepyfile(test_it=MARKED)
    return pytester


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one-process", "two-workers"])
def test_marked_tests_are_left_out_with_a_sentence_where_the_need_is_not_met(
    project: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    result = project.runpytest_inprocess("-p", "tests.plugins.left_out", *workers)
    result.assert_outcomes(passed=1, deselected=0 if workers else 1)  # workers do not count them
    result.stdout.fnmatch_lines(["LEFT OUT: 1 tests marked nats_cli: *Go toolchain*"])


def test_marked_tests_run_where_the_need_is_met(project: pytest.Pytester) -> None:
    program = project.path / ".cache/nats-cli/v1/nats"
    program.parent.mkdir(parents=True)
    program.touch()
    result = project.runpytest_inprocess("-p", "tests.plugins.left_out")
    result.assert_outcomes(passed=2)
    assert "LEFT OUT" not in result.stdout.str()


def test_a_nats_program_on_path_is_not_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nats").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert left_out.find_nats_cli(tmp_path) is None
