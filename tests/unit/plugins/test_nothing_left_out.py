"""CI's guard against tests that are left out must itself fail when one is."""

import pytest

PASSING = "def test_passes(): pass"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A small project with one folder of tests, one of them passing."""
    pytester.makepyprojecttoml(
        "[tool.pytest]\ntestpaths = ['checks']\nasyncio_default_fixture_loop_scope = 'function'"
    )
    pytester.mkdir("checks")
    add(pytester, "test_good.py", PASSING)
    return pytester


def add(project: pytest.Pytester, name: str, text: str) -> None:
    (project.path / "checks" / name).write_text(text + "\n", encoding="utf-8")


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess(
        "-p", "tests.plugins.nothing_left_out", "--nothing-left-out", *arguments
    )


def test_all_passing_succeeds(project: pytest.Pytester) -> None:
    result = run(project)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ("skipped", "import pytest\n@pytest.mark.skip\ndef test_it(): pass"),
        ("skipped", "import pytest\ndef test_it(): pytest.skip('not now')"),
        ("xfailed", "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False"),
        ("xpassed", "import pytest\n@pytest.mark.xfail\ndef test_it(): pass"),
        ("uncollected", "class TestThing:\n    __test__ = False\n    def test_it(self): pass"),
        ("uncollected", "if False:\n    def test_it(): pass"),
        ("uncollected", "class Helper:\n    def test_it(self): pass"),
    ],
)
def test_a_test_that_is_left_out_fails_the_run(project: pytest.Pytester, outcome: str, text: str) -> None:
    add(project, "test_bad.py", text)
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"{outcome}: checks/test_bad.py::*test_it"])


def test_a_module_that_is_skipped_as_a_whole_fails_the_run(project: pytest.Pytester) -> None:
    add(project, "test_bad.py", "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass")
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["uncollected: checks/test_bad.py::test_it", "skipped: checks/test_bad.py"])


def test_a_test_in_a_file_that_pytest_does_not_look_at_fails_the_run(project: pytest.Pytester) -> None:
    add(project, "bad.py", "def test_it(): pass")
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["uncollected: checks/bad.py::test_it"])


def test_a_deselected_test_fails_the_run(project: pytest.Pytester) -> None:
    add(project, "test_other.py", "def test_other(): pass")
    result = run(project, "-k", "passes")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["deselected: checks/test_other.py::test_other"])


def test_a_file_that_cannot_be_collected_keeps_pytest_s_own_failure(project: pytest.Pytester) -> None:
    add(project, "test_bad.py", "import no_such_module\ndef test_it(): pass")
    result = run(project)
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_parameters_are_no_tests_of_their_own(project: pytest.Pytester) -> None:
    add(
        project,
        "test_more.py",
        "import pytest\n@pytest.mark.parametrize('n', ['a::b', '[', 'x'])\ndef test_it(n): pass\n"
        "class TestThing:\n    def test_it(self): pass",
    )
    result = run(project)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=5)


def test_workers_tell_of_what_they_left_out(project: pytest.Pytester) -> None:
    workers = ("-n", "2")
    assert run(project, *workers).ret == pytest.ExitCode.OK
    add(project, "bad.py", "def test_it(): pass")
    add(
        project, "test_bad.py", "import pytest\ndef test_it(): pytest.skip('not now')\ndef test_other(): pass"
    )
    result = run(project, *workers, "-k", "not other")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines_random(
        [
            "uncollected: checks/bad.py::test_it",
            "skipped: checks/test_bad.py::test_it",
            "deselected: checks/test_bad.py::test_other",
        ]
    )
    assert result.stdout.str().count("bad.py::test_other") == 1, "told by both"
