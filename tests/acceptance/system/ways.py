"""From `setup` to any other state."""

from tests.acceptance.system.whole_system import System


def bring_to(system: System, name: str, state: str) -> None:
    """From `setup`, with the copier paused in `syncing`."""
    way = ("setup", "syncing", "source-selected", "target-selected", "committed")
    steps = way.index(state)
    if steps >= 1:
        system.client.command("pause", name)
        system.client.command("sync", name)
    if steps >= 2:
        system.client.command("resume", name)
        system.client.until_state(name, "source-selected")
    if steps >= 3:
        system.client.command("select-target", name)
    if steps >= 4:
        system.client.command("commit", name)
        system.client.until(name, lambda status: not status["error_flag"] and not status["journal_pending"])
