"""What `results.json` says follows from the samples, under the names that its readers know."""

import json
from pathlib import Path

import pytest

from benchmarks.fio import Sample
from benchmarks.report import cases, ratios, write_results
from benchmarks.rounds import Plan, Samples
from benchmarks.workloads import COPY, RATIOS, WORKLOADS, Caching, System, workloads_for


def io(iops: float) -> Sample:
    return Sample(mib_per_s=iops / 256, iops=iops, p50_us=10.0, p99_us=20.0)


@pytest.fixture
def samples() -> Samples:
    """Three samples for each side of one ratio, and one of a copy."""
    taken = Samples()
    for ours, theirs in ((30_000, 10_000), (90_000, 16_000), (40_000, 90_000)):
        taken.add("randwrite_4k_qd16", System.CUTOVER_CLONED, io(ours))
        taken.add("randwrite_4k_qd16", System.QSD_MIRROR, io(theirs))
    taken.add("copy_1gib_direct", System.CUTOVER_CLONED, Sample(mib_per_s=1024, seconds=1.0))
    taken.add("copy_1gib_direct", System.QSD_MIRROR, Sample(mib_per_s=2048, seconds=0.5))
    return taken


def test_a_ratio_is_that_of_the_medians(samples: Samples) -> None:
    assert ratios(cases(samples)) == {
        "cloned_randwrite_4k_qd16_vs_qsd_mirror": 2.5,
        "copy_1gib_vs_qsd_mirror_direct": 0.5,
    }


def test_results_hold_medians_and_every_sample(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, cases(samples), Plan(rounds=3, seconds=5, full=False))
    document = json.loads(path.read_text(encoding="utf-8"))
    case = document["cases"][0]
    assert (case["name"], case["system"]) == ("randwrite_4k_qd16", "cutover_cloned")
    assert (case["iops"], case["p50_us"], case["p99_us"]) == (40_000, 10.0, 20.0)
    assert case["mib_per_s"] == 156.25
    assert [sample["iops"] for sample in case["samples"]] == [30_000, 90_000, 40_000]
    assert document["ratios"] == ratios(cases(samples))


def test_every_promised_ratio_is_defined() -> None:
    assert {ratio.name for ratio in RATIOS} >= {
        "cloned_randwrite_4k_qd16_vs_qsd_mirror",
        "cloned_randread_4k_qd16_vs_qsd_mirror",
        "cloned_randwrite_4k_qd1_vs_qsd_mirror",
        "plain_randwrite_4k_qd16_vs_nbdkit",
        "copy_1gib_vs_qsd_mirror",
    }
    assert Caching.DIRECT.case("copy_1gib_vs_qsd_mirror") == "copy_1gib_vs_qsd_mirror_direct"
    assert Caching.LARGE_FOLIOS.case("randwrite_4k_qd16") == "randwrite_4k_qd16_large_folios"


@pytest.mark.parametrize("full", [False, True])
def test_both_sides_of_every_ratio_are_measured(full: bool) -> None:
    for ratio in RATIOS:
        for system in (ratio.ours, ratio.theirs):
            measured = {workload.name for workload in workloads_for(system, full=full)}
            assert ratio.case == COPY or ratio.case in measured


def test_a_full_run_measures_every_workload_on_every_export() -> None:
    for system in System:
        expected = () if system is System.NBDCOPY else WORKLOADS
        assert workloads_for(system, full=True) == expected
