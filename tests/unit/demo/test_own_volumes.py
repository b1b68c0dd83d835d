"""Devices of the operator's in the demonstration: what is seen before anything is begun."""

from pathlib import Path

import pytest

from demo.own_volumes import OwnVolumes
from demo.screen import Screen
from demo.volume import DemoError


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("way", ["the same path", "a symbolic link", "a hard link"])
async def test_one_device_by_two_names_is_refused_as_such(
    tmp_path: Path, way: str, *, overwrite: bool
) -> None:
    """It holds data, but that is not what is wrong with it: OVERWRITE=1 must not be spoken of."""
    source, target = tmp_path / "source.img", tmp_path / "other.img"
    source.write_bytes(b"precious" * 512)
    match way:
        case "a symbolic link":
            target.symlink_to(source)
        case "a hard link":
            target.hardlink_to(source)
        case _:
            target = source
    with pytest.raises(DemoError, match="are the same device") as caught:
        await OwnVolumes(source, target, overwrite=overwrite).prepare(Screen())
    assert "OVERWRITE" not in str(caught.value)


async def test_target_with_data_needs_consent(tmp_path: Path) -> None:
    source, target = tmp_path / "source.img", tmp_path / "target.img"
    for path in (source, target):
        path.write_bytes(b"precious" * 512)
    with pytest.raises(DemoError, match="OVERWRITE=1"):
        await OwnVolumes(source, target, overwrite=False).prepare(Screen())
