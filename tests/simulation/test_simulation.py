"""The simulation, as CI runs it: seeds without end are `make sim SEEDS=n`, and one is told in full by `make sim SEED=n`."""

import os
import subprocess
import sys

import pytest

from tests.simulation.simulation import run

_DIGESTS = "from tests.simulation.simulation import run; print([run(seed).digest for seed in (1, 17, 44)])"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_seed_of_the_simulation_goes_wrong_and_everything_is_reached(campaign: tuple[int, str]) -> None:
    status, printed = campaign
    print(printed.splitlines()[-1])
    assert status == 0, printed


@pytest.mark.timeout(600)
def test_a_seed_replays_exactly_whatever_the_process_hashes_strings_to() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_disks_that_lie_about_flushes_are_found_out() -> None:
    """The positive control: a simulation that cannot tell them from honest ones proves nothing."""
    assert any("WrongDataError" in run(seed, is_honest=False).wrong for seed in range(40))
