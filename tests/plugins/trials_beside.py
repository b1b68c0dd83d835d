"""Runs the trials of the mutations beside the other tests, like the campaign (`campaign_beside`), and for the same reason."""

import os
from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from tests.simulation.mutations.mutation import Mutation
from tests.simulation.mutations.trial import Found, try_all

TEST = "test_mutation_is_found"
FROM_0 = "CUTOVER_MUTATIONS_FROM_0"

Trials = Mapping[str, Future[Found | None]]
KEY = pytest.StashKey[Trials]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start those whose tests are to run."""
    if session.config.option.collectonly:
        return
    mutations = [
        mutation
        for item in session.items
        if isinstance(item, pytest.Function)
        and item.originalname == TEST
        and isinstance(mutation := item.callspec.params["mutation"], Mutation)
    ]
    if mutations:
        session.config.stash[KEY] = try_all(mutations, first_seed=_first_seed)


def _first_seed(mutation: Mutation) -> int:
    return 0 if os.environ.get(FROM_0) else mutation.first_seed


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Begin no other."""
    for trial in session.config.stash.get(KEY, {}).values():
        trial.cancel()
