"""What is measured: fio's jobs, and which figures are set against each other.

Names are part of `results.json`; a case measured with direct I/O has the same name with `_direct` at the end, one
with large folios in the cache with `_large_folios`. This file knows no system and runs nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

COPY = "copy_1gib"  # not one of fio's: a system's own initial copy of the whole source


class System(StrEnum):
    """Who is measured. Cutover counts twice: it does different work before and after `sync`."""

    CUTOVER_PLAIN = "cutover_plain"  # in `setup`: source only
    CUTOVER_CLONED = "cutover_cloned"  # in `source-selected`: every write to both
    NBDKIT = "nbdkit"
    QEMU_NBD = "qemu_nbd"
    QSD_MIRROR = "qsd_mirror"  # qemu-storage-daemon, write-blocking mirror, READY
    NBDCOPY = "nbdcopy"  # only copies


class Caching(StrEnum):
    """How the systems open the two files, and how the page cache holds them when a measurement begins.

    Linux keeps in one piece (a large folio) what one large read or write brought, up to megabytes. Since 6.16 ext4 does so
    too, and looks at every block of a folio for each small write to it. That costs more than all the rest of the write and is
    the same for every system, so that it hides what they do themselves. Hence the plain kind is a cache of single pages, as
    small random requests leave it; the other is measured too, since a file that was just copied is in that state.
    """

    BUFFERED = "buffered"  # every page in the cache, each by itself
    LARGE_FOLIOS = "large_folios"  # every page in the cache, in pieces as large as the kernel makes them
    DIRECT = "direct"  # O_DIRECT, and nothing in the cache

    def case(self, name: str) -> str:
        """The name of a case or ratio with this kind of caching."""
        return name if self is Caching.BUFFERED else f"{name}_{self}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One job for fio. `pattern` is fio's `rw`."""

    name: str
    pattern: str
    block_bytes: int
    depth: int


def _small(kind: str, pattern: str, depth: int) -> Workload:
    return Workload(f"{kind}_4k_qd{depth}", pattern, 4 * KIB, depth)


WORKLOADS = (
    *(
        _small(kind, pattern, depth)
        for kind, pattern in (("randwrite", "randwrite"), ("randread", "randread"), ("mix70", "randrw"))
        for depth in (1, 16)
    ),
    Workload("seqwrite_1m_qd8", "write", MIB, 8),
    Workload("seqread_1m_qd8", "read", MIB, 8),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times `theirs` does `ours` do, in one case. `bar` is the least that we want of ourselves, buffered."""

    name: str
    case: str
    ours: System
    theirs: System
    bar: float | None = None


RATIOS = (
    Ratio(
        "cloned_randwrite_4k_qd16_vs_qsd_mirror",
        "randwrite_4k_qd16",
        System.CUTOVER_CLONED,
        System.QSD_MIRROR,
        bar=2.0,
    ),
    Ratio(
        "cloned_randread_4k_qd16_vs_qsd_mirror",
        "randread_4k_qd16",
        System.CUTOVER_CLONED,
        System.QSD_MIRROR,
        bar=1.5,
    ),
    Ratio(
        "cloned_randwrite_4k_qd1_vs_qsd_mirror",
        "randwrite_4k_qd1",
        System.CUTOVER_CLONED,
        System.QSD_MIRROR,
    ),
    Ratio("plain_randwrite_4k_qd16_vs_nbdkit", "randwrite_4k_qd16", System.CUTOVER_PLAIN, System.NBDKIT),
    Ratio("plain_randwrite_4k_qd16_vs_qemu_nbd", "randwrite_4k_qd16", System.CUTOVER_PLAIN, System.QEMU_NBD),
    Ratio("copy_1gib_vs_qsd_mirror", COPY, System.CUTOVER_CLONED, System.QSD_MIRROR, bar=1.0),
    Ratio("copy_1gib_vs_nbdcopy", COPY, System.CUTOVER_CLONED, System.NBDCOPY),
)


def workloads_for(system: System, *, full: bool) -> tuple[Workload, ...]:
    """What to run on a system: everything, or only what a ratio asks for."""
    if system is System.NBDCOPY:
        return ()
    if full:
        return WORKLOADS
    asked = {ratio.case for ratio in RATIOS if system in {ratio.ours, ratio.theirs}}
    return tuple(workload for workload in WORKLOADS if workload.name in asked)
