"""Each deliberate break of the product is found by the simulation, in a seed that the product as it is survives.

Each trial begins with the seed that found the break when it was recorded, which makes it quick; `python -m
tests.simulation.mutations.trial` begins at seed 0, like anybody who knows nothing.
"""

import pytest

from tests.simulation.mutations.mutation import Mutation
from tests.simulation.mutations.table import MUTATIONS
from tests.simulation.mutations.trial import ROOT, outcomes
from tests.simulation.simulation import run


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_is_found(mutation: Mutation, trials: tuple[int, str]) -> None:
    status, printed = trials
    assert status == 0, printed
    found = outcomes(printed)[mutation.name]
    assert found is not None, f"no seed finds this break of {mutation.rule}: {mutation.why}"
    assert run(found.seed).wrong == "", f"seed {found.seed} goes wrong without the break"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_fits_the_product(mutation: Mutation) -> None:
    for change in mutation.changes:
        content = (ROOT / change.path).read_text()
        assert change.mutated(content) != content


def test_names_differ() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
