"""Looks at what this host has of a migration that it does not have open: the witness, and the two devices.

Nothing is changed. A device is opened as it would be for use, so that it is known whether it could be, and let go at once.
"""

from services.write_cloning.host import Host
from shared.messages.recovery import ExamineReply, ExamineRequest, Finding
from shared.migration.devices import DeviceIdentity
from shared.migration.refusals import Code, Refusal


class Examiner:
    """Answers `examine`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._around = host.around

    async def examine(self, name: str, request: ExamineRequest) -> ExamineReply:
        """Look.

        Raises:
            Refusal: (`not-allowed`) the volume is open here.
        """
        if self._host.status(name).migrations:
            raise Refusal(Code.NOT_ALLOWED, f"Host {self._around.host} has {name} open.")
        witnesses, unreadable = await self._around.witnesses.read_all()
        witness = next((each for each in witnesses if each.migration == name), None)
        openings = self._around.witnesses.openings
        opened, given_away = await openings.read(), await openings.given_away()
        devices = request.devices or (witness.devices if witness is not None else None)
        return ExamineReply(
            witness=witness.view(opened.get(witness.uuid)) if witness is not None else None,
            unreadable=next((each.reason for each in unreadable if each.migration == name), ""),
            source=await self._find(devices.source, is_target=False) if devices is not None else None,
            target=await self._find(devices.target, is_target=True) if devices is not None else None,
            given_away=tuple(each for each in given_away if each.migration == name),
        )

    async def _find(self, identity: DeviceIdentity, *, is_target: bool) -> Finding:
        try:
            device = await self._around.opener.open_recorded(identity, is_target=is_target)
        except Refusal as refusal:
            return Finding(usable=False, code=refusal.code, message=refusal.message)
        await device.close()
        return Finding(usable=True)
