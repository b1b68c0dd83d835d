"""`--nothing-left-out`: the run fails unless every test there is was run and passed. CI runs with it.

pytest's own exit status is 0 when tests are skipped, deselected or expected to fail, and it cannot know about tests
that it never collected. Here each of them is an error: skipped, xfailed, xpassed, deselected, and *uncollected*, which
is a function or method named `test_…` in a file below `testpaths` from which no test came (a file whose name does not
match, a class that pytest passes over, a name that is defined twice).

For a run of everything: a path or a `-k` on the command line leaves tests out, and fails.

With pytest-xdist only the workers know what was collected and deselected, and only their controller how each test ended; so
they tell it.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_OUTCOMES = ("skipped", "xfailed", "xpassed")
_MOST_SHOWN = 20
_FOUND = "cutover_left_out"  # what a worker found, in what it tells the controller

TestName = tuple[str, str]  # a file below the root, and `function` or `Class::method` in it


def defined_tests(file: Path, name: str) -> Iterator[TestName]:
    """Everything in one file that is named like a test, whether pytest would look at it or not."""
    tree = ast.parse(file.read_bytes(), filename=name)
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        prefix, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("test_"):
                    yield name, prefix + node.name
            elif isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}::", node))
            else:
                pending.append((prefix, node))  # a definition under `if` or `try` counts as well


def collected_test(item: pytest.Item) -> TestName:
    """The same name for a test that pytest has collected."""
    file, *names = item.nodeid.split("[", 1)[0].split("::")
    return file, "::".join(names)


class NothingLeftOut:
    """Watches one run; `problems` is empty when nothing was left out."""

    def __init__(self, config: pytest.Config) -> None:
        self._root = config.rootpath
        self._folders = [config.rootpath / folder for folder in config.getini("testpaths")]
        self.problems: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """See what was not collected, before anything is deselected: that is told apart."""
        collected = {collected_test(item) for item in items}
        self.problems += [
            f"uncollected: {file}::{name}" for file, name in sorted(self._defined() - collected)
        ]

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """See what will not run."""
        self.problems += [f"deselected: {item.nodeid}" for item in items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Hear from a worker what it found; every one finds the same."""
        found = getattr(node, "workeroutput", {}).get(_FOUND, [])  # a worker that crashed tells nothing
        self.problems += [problem for problem in found if problem not in self.problems]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Iterator[None]:
        """Turn what was left out into problems, and success into failure when there is one."""
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        stats = reporter.stats if reporter is not None else {}
        for outcome in _OUTCOMES:
            self.problems += [f"{outcome}: {_name(report)}" for report in stats.get(outcome, [])]
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_FOUND] = self.problems
        elif self.problems and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was left out."""
        if not self.problems:
            return
        terminalreporter.section("left out", red=True)
        for problem in self.problems[:_MOST_SHOWN]:
            terminalreporter.write_line(problem)
        if len(self.problems) > _MOST_SHOWN:
            terminalreporter.write_line(f"… and {len(self.problems) - _MOST_SHOWN} more")

    def _defined(self) -> set[TestName]:
        defined: set[TestName] = set()
        for folder in self._folders:
            for file in folder.rglob("*.py"):
                defined |= set(defined_tests(file, file.relative_to(self._root).as_posix()))
        return defined


def _name(report: object) -> str:
    return str(getattr(report, "nodeid", report))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--nothing-left-out",
        action="store_true",
        help="fail unless every test was collected, run and passed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run when asked to."""
    if config.getoption("--nothing-left-out"):
        config.pluginmanager.register(NothingLeftOut(config), "nothing_left_out")
