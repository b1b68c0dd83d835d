"""How a migration may have come to where startup finds it, told by a scripted host. Each ends with the host down."""

from collections.abc import Awaitable, Callable

from shared.migration.devices import Side
from shared.migration.table import Trigger
from tests.support.scripted_host import ScriptedHost

Story = Callable[[ScriptedHost], Awaitable[None]]


async def idle(host: ScriptedHost) -> None:
    await host.set_up()


async def flagged_but_never_entered(host: ScriptedHost) -> None:
    await host.set_up()
    await host.set_flag()


async def back_in_setup_with_the_flag_set(host: ScriptedHost) -> None:
    await syncing(host)
    await host.fail()
    host.reports = False  # the decision and the clear never arrive
    await host.move("vol1", Trigger.TARGET_FAULT)


async def syncing(host: ScriptedHost) -> None:
    await host.set_up()
    await host.sync()


async def source_selected(host: ScriptedHost) -> None:
    await syncing(host)
    await host.move("vol1", Trigger.COPIED)


async def target_selected(host: ScriptedHost) -> None:
    await source_selected(host)
    await host.move("vol1", Trigger.SELECT_TARGET)


async def source_lost(host: ScriptedHost) -> None:
    await target_selected(host)
    await host.fail(side=Side.SOURCE)
    await host.move("vol1", Trigger.SOURCE_FAULT)


async def committed(host: ScriptedHost) -> None:
    await target_selected(host)
    await host.move("vol1", Trigger.COMMIT)


async def committed_with_the_flag_set(host: ScriptedHost) -> None:
    await target_selected(host)
    host.reports = False
    await host.move("vol1", Trigger.COMMIT)
    host.reports = True
    await host.report("vol1")


async def target_failed_unheard(host: ScriptedHost) -> None:
    """The fault is only in the witness, and the flag was cleared at a clean stop."""
    await source_selected(host)
    await host.clear_flag()
    host.reports = False
    await host.fail()


def cleanly(story: Story) -> Story:
    """The same, with a clean stop at the end. It has a name, for the ids of tests."""

    async def told(host: ScriptedHost) -> None:
        await story(host)
        await host.clear_flag()

    told.__name__ = f"{story.__name__}_stopped_cleanly"
    return told
