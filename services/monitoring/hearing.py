"""What is heard on the bus, and which of it is believed.

Any host may tell progress of any migration, and a name in it would become part of the page and of the metrics. So what a message
says has to agree with its subject, and it is believed only of a migration and a host that are known otherwise: from the journal,
from state_control, or from the discovery of services.
"""

import logging
from dataclasses import replace

from services.monitoring.picture import Picture
from services.monitoring.times import seconds_of, text_of
from services.monitoring.wall import Wall
from shared.bus.interface import Told
from shared.logs.about import about
from shared.messages.codec import decode_record, decode_reply
from shared.messages.status import PROGRESS_PREFIX, HostView, progress_subject
from shared.migration.names import is_valid_name
from shared.migration.records import Subjects
from shared.migration.refusals import Refusal
from shared.plain import shortened

_log = logging.getLogger(__name__)

DOUBTED_MAX = 100  # subjects of which it is remembered that they were told of in the log


class Hearing:
    """Has the picture told what is believed."""

    def __init__(self, picture: Picture, wall: Wall) -> None:
        self._picture = picture
        self._wall = wall
        self._doubted: set[str] = set()

    def hear(self, told: Told) -> str | None:
        """Take one message. Returns the migration of which the journal has news, if it has."""
        try:
            if told.subject.startswith(PROGRESS_PREFIX):
                self._hear_progress(told.subject, decode_reply(HostView, told.payload))
                return None
            record = decode_record(told.payload)
        except Refusal as refusal:
            self._doubt(told.subject, refusal.message)
            return None
        if told.subject != Subjects.of(record) or not is_valid_name(record.migration):
            self._doubt(told.subject, "the record in it belongs elsewhere")
            return None
        self._picture.told_record(record)
        return record.migration

    def _hear_progress(self, subject: str, view: HostView) -> None:
        if not (is_valid_name(view.name) and subject == progress_subject(view.name)):
            self._doubt(subject, "the migration that it names is not the subject's")
            return
        if not is_valid_name(view.host):
            self._doubt(subject, "the host that it names has no valid name")
            return
        known = self._picture.migrations.get(view.name)
        if known is None or known.uuid != view.uuid or view.host not in self._picture.around.hosts:
            _log.debug("progress of what is not known, or not yet", extra=about(view.name, host=view.host))
            return
        now = self._wall.now()
        if seconds_of(view.at) > now:  # its host's clock is ahead, or it says so
            view = replace(view, at=text_of(now))
        self._picture.told_progress(view, now)

    def _doubt(self, subject: str, why: str) -> None:
        """Say once, for each subject, that something on it is not believed."""
        if subject not in self._doubted and len(self._doubted) < DOUBTED_MAX:
            self._doubted.add(subject)
            _log.warning("A message on %r is passed over: %s", shortened(subject), why)
