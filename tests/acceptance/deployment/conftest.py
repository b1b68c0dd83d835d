"""The image, built once; and an engine for each composition that is tried."""

import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.deployment.building import build
from tests.acceptance.deployment.composition import Composition, read_composition
from tests.acceptance.deployment.container import Engine, Image, private_network
from tests.acceptance.deployment.dockerfile import Stage, read_dockerfile
from tests.plugins.left_out import find_nats_cli


@pytest.fixture(scope="session")
def stages(pytestconfig: pytest.Config) -> dict[str, Stage]:
    return read_dockerfile(pytestconfig.rootpath / "Dockerfile")


@pytest.fixture(scope="session")
def composition(pytestconfig: pytest.Config) -> Composition:
    """compose.yaml as it is on a fresh checkout."""
    return read_composition({}, pytestconfig.rootpath / "compose.yaml")


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder in memory, because an image is thousands of small files; its path is short, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def installed(pytestconfig: pytest.Config, stages: Mapping[str, Stage], scratch: Path) -> Path:
    """What the image has in /opt/cutover."""
    folder = scratch / "image"
    folder.mkdir()
    return build(pytestconfig.rootpath, stages["build"], folder)


@pytest.fixture(scope="session")
def images(
    pytestconfig: pytest.Config,
    installed: Path,
    stages: Mapping[str, Stage],
    composition: Composition,
    scratch: Path,
) -> Mapping[str, Image]:
    """By the names that compose.yaml has for them."""
    nats = scratch / "nats"
    nats.mkdir()
    shutil.copy2(Path(sysconfig.get_path("scripts")) / "nats-server", nats)
    (nats / "wget").symlink_to("/usr/bin/busybox")  # which is Alpine's wget
    box = scratch / "nats-box"
    box.mkdir()
    if (program := find_nats_cli(pytestconfig.rootpath)) is not None:
        shutil.copy2(program, box)
    product = stages["cutover"]
    return {
        composition.services["nats-box"].image: Image(
            {"/opt/nats-box": box}, [], {"PATH": "/opt/nats-box:/usr/bin"}, "/"
        ),
        composition.services["nats"].image: Image(
            {"/opt/nats": nats}, stages["nats"].made_folders, {"PATH": "/opt/nats:/usr/bin"}, "/"
        ),
        composition.services["startup"].image: Image(
            {"/opt/cutover": installed}, product.made_folders, product.environment, product.folder
        ),
    }


@pytest.fixture
def engine(
    pytestconfig: pytest.Config, images: Mapping[str, Image], scratch: Path
) -> Iterator[Callable[[Composition], Engine]]:
    """Makes an engine with volumes of its own; what still runs at the end is killed."""
    with ExitStack() as stack:

        def make(composition: Composition) -> Engine:
            network = stack.enter_context(private_network())
            folder = Path(tempfile.mkdtemp(dir=scratch))
            made = Engine(composition, pytestconfig.rootpath, images, folder, network)
            stack.callback(made.kill_all)
            return made

        yield make
