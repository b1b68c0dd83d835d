"""What earlier attempts and earlier runs have left on its way to the devices of one migration, and may still land (rule R6).

A device that is not in use any more is closed once its last request was answered; until then it is kept here. A remote one may
lose its connection before that: then nothing tells any more, and somebody has to vouch for it (`fences`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.write_cloning.devices.interface import Device, Unfenced
from services.write_cloning.fences import how_to_vouch, unfenced_sides
from shared.logs.about import about
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State

log = logging.getLogger(__name__)

LET_GO_WAIT_S = 1.0


class LeftBehind:
    """See the module's docstring."""

    def __init__(
        self,
        name: str,
        devices: DevicePair,
        device_of: Callable[[Side], Device],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Begin with nothing; `device_of` gives the device of a side that is in use, or stands for it."""
        self._name = name
        self._devices = devices
        self._device_of = device_of
        self._tasks = tasks
        self._retired: list[Device] = []  # devices that have not let go of their last requests yet
        self._closing: set[asyncio.Task[None]] = set()  # those of them that are remote
        # Requests of an earlier run may still land on these, which are not in use (`fences`).
        self.in_doubt: tuple[Side, ...] = ()
        self.when_released: Callable[[], Awaitable[None]] = _nothing

    # ------------------------------------------------------------------ what there is

    @property
    def outstanding(self) -> int:
        """Requests of earlier attempts that may still land on a device."""
        return sum(device.outstanding for device in self._retired)

    @property
    def broken(self) -> list[Device]:
        """Remote devices that are in use, and can do nothing any more."""
        in_use = (self._device_of(Side.SOURCE), self._device_of(Side.TARGET))
        return [each for each in in_use if isinstance(each, Unfenced) and each.is_broken]

    @property
    def given_up(self) -> list[Device]:
        """Devices that get no request any more: those that are not in use, and those in use that are broken."""
        return [*self._retired, *self.broken]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should look at now, and what a `sync` is refused for."""
        return (*self._doubts(), *self._outstanding())

    def _doubts(self) -> tuple[str, ...]:
        if not self.in_doubt:
            return ()
        names = " and ".join(self._devices.of(side).name for side in self.in_doubt)
        message = f"Requests of an earlier run may still land on {names}: it did not close the connection"
        return (f"{message}. {how_to_vouch(self._name)}",)

    def _outstanding(self) -> tuple[str, ...]:
        if not (count := sum(each.outstanding for each in self.given_up)):
            return ()
        of = "an earlier attempt" if self.outstanding else "a broken connection"
        are = f"1 request of {of} is" if count == 1 else f"{count} requests of {of} are"
        names = " and ".join({each.identity.name: None for each in self.given_up if each.outstanding})
        message = f"{are} outstanding on {names}; try again when they are done."
        if any(isinstance(each, Unfenced) for each in self.given_up):
            message = f"{message} {how_to_vouch(self._name)}"
        return (message,)

    def busy_devices(self) -> list[str]:
        """The devices that have not answered all that they were asked, with how much that is."""
        devices = (self._device_of(Side.SOURCE), self._device_of(Side.TARGET), *self._retired)
        return [f"{device.identity.name} ({device.outstanding})" for device in devices if device.outstanding]

    # ------------------------------------------------------------------ what is refused for it

    def refuse(self) -> None:
        """Refuse to use the devices again while requests of an earlier attempt or run may still land on one (rule R6).

        Raises:
            Refusal: `outstanding-requests`.
        """
        if self.warnings:
            raise Refusal(Code.OUTSTANDING_REQUESTS, self.warnings[0])

    def refuse_unfenced(self) -> None:
        """Refuse to forget requests that may still land on a remote device; those to a local one the kernel keeps its lock for.

        Raises:
            Refusal: `outstanding-requests`.
        """
        if self.in_doubt or any(isinstance(each, Unfenced) and each.outstanding for each in self.given_up):
            self.refuse()

    # ------------------------------------------------------------------ what the witness says of it

    def vouch(self) -> None:
        """Take the operator's word that nothing of earlier connections can land any more; those in use go on, if they can."""
        self.in_doubt = ()
        for device in self.given_up:
            if isinstance(device, Unfenced):
                device.vouch_gone()
        self._retired = [device for device in self._retired if not isinstance(device, Unfenced)]

    def unfenced(self, state: State, authority: Side, *, before: tuple[Side, ...] = ()) -> tuple[Side, ...]:
        """The sides that the witness has to name (`fences`): those in use in a state, or before it, and those not let go of."""
        sides = {*unfenced_sides(self._devices, state, authority), *before, *self._not_let_go()}
        return tuple(side for side in Side if side in sides)

    def unfenced_at_the_end(self) -> tuple[Side, ...]:
        """The sides that it has to name once both devices are closed."""
        held = {
            side
            for side in Side
            if isinstance(device := self._device_of(side), Unfenced) and device.outstanding
        }
        return tuple(side for side in Side if side in held or side in self._not_let_go())

    def _not_let_go(self) -> list[Side]:
        tokens = {device.identity.token for device in self._retired if isinstance(device, Unfenced)}
        return [side for side in Side if side in self.in_doubt or self._devices.of(side).token in tokens]

    # ------------------------------------------------------------------ leaving a device

    def retire(self, device: Device) -> None:
        """Close a device that is out of the routing, once it has let go of its last request; nobody waits for that."""
        self._retired.append(device)
        closing = self._tasks.create_task(self._close(device), name=f"close {device.identity.name}")
        if isinstance(device, Unfenced):
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def let_go(self) -> None:
        """Give remote devices that are not in use any more a moment to answer what is left: of the rest somebody has to vouch."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=LET_GO_WAIT_S)

    async def _close(self, device: Device) -> None:
        try:
            await device.close()
        except OSError as error:
            # Closed all the same, and its lock is gone: that is the kernel's last word on it.
            log.warning("closing %s: %s", device.identity.name, error, extra=about(self._name))
        if device in self._retired and not (isinstance(device, Unfenced) and device.outstanding):
            self._retired.remove(device)
        await self.when_released()


async def _nothing() -> None:
    pass
