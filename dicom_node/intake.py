"""Decides when a series is whole, and by which evidence.

Here: every association that brought it was released, its slices are contiguous, and a short grace has
passed; or, as the last resort, nothing came for the quiet period. What arrives later makes a new revision.
"""

import logging
from datetime import UTC, datetime, timedelta

from dicom_node.catalogue.store import Catalogue
from dicom_node.reading import contiguous
from dicom_node.records import AssociationEnding, Job
from dicom_node.settings import CompletionSettings

log = logging.getLogger(__name__)

_CLEAN = frozenset({AssociationEnding.RELEASED, AssociationEnding.LOST})


class Intake:
    """Looks at every series that is being received and turns the whole ones into READY jobs.

    Make it when the listener starts: silence before that is no evidence, since nobody listened.
    """

    def __init__(self, settings: CompletionSettings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._listening_since = datetime.now(UTC)
        self._verdicts: dict[int, tuple[datetime, bool]] = {}

    def tick(self, now: datetime | None = None) -> list[Job]:
        """Completes the series whose evidence suffices at `now`; their jobs."""
        now = now or datetime.now(UTC)
        done: list[Job] = []
        waiting: set[int] = set()
        for job, last_instance_at in self._catalogue.jobs.receiving():
            waiting.add(job.id)
            evidence = self._evidence(job, last_instance_at, now)
            completed = evidence and self._catalogue.jobs.complete(job, last_instance_at, evidence)
            if completed:
                done.append(completed)
                log.info("series complete", extra={"job": job.id, "evidence": evidence})
        self._verdicts = {key: value for key, value in self._verdicts.items() if key in waiting}
        return done

    def _evidence(self, job: Job, last_instance_at: datetime, now: datetime) -> str:
        """The evidence that the series is whole; empty while there is none."""
        if now - last_instance_at < timedelta(seconds=self._settings.grace_s):
            return ""
        if self._released_and_contiguous(job, last_instance_at):
            return f"release and contiguous slices, {self._settings.grace_s:g} s grace"
        if now - max(last_instance_at, self._listening_since) >= timedelta(seconds=self._settings.quiet_s):
            return f"quiet for {self._settings.quiet_s:g} s"
        return ""

    def _released_and_contiguous(self, job: Job, last_instance_at: datetime) -> bool:
        series = job.study_instance_uid, job.series_instance_uid
        endings = self._catalogue.arrivals.endings(*series)
        # where this node died in the middle (LOST), the sender's later release says that it has sent the rest
        if not endings or endings[-1] != AssociationEnding.RELEASED or not _CLEAN.issuperset(endings):
            return False
        known = self._verdicts.get(job.id)
        if known is None or known[0] != last_instance_at:
            known = last_instance_at, contiguous(self._catalogue.arrivals.headers(*series))
            self._verdicts[job.id] = known
        return known[1]
