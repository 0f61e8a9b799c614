"""Keeps the broker and the workers honest: whatever they lost comes back from the catalogue.

Every tick is safe to run in several processes at once: each change is a compare-and-set.
"""

import logging
from datetime import timedelta

from dicom_node.catalogue.store import Catalogue
from dicom_node.errors import QueueUnavailable
from dicom_node.queue import JobQueue
from dicom_node.settings import Settings

log = logging.getLogger(__name__)


class Reconciler:
    """Submits what the outbox holds, and posts again what a broker or a worker lost."""

    def __init__(self, settings: Settings, catalogue: Catalogue, queue: JobQueue) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._queue = queue
        self._broker_works = True

    def dispatch(self) -> int:
        """Hands every outbox row to the broker; how many. A broker that is away is tried next time."""
        sent = 0
        try:
            for outbox_id, job_id, queue in self._catalogue.jobs.to_submit():
                if self._catalogue.jobs.mark_submitted(job_id):
                    self._queue.submit(job_id, queue)
                    sent += 1
                self._catalogue.jobs.submitted(outbox_id)
        except QueueUnavailable as error:
            self._broker(works=False, reason=error.reason())
        else:
            self._broker(works=True)
        return sent

    def reconcile(self) -> None:
        """Ends leases that ran out, and posts again what nobody claimed."""
        lost = self._catalogue.jobs.release(owner=None, max_attempts=self._settings.worker.max_attempts)
        if lost:
            log.warning("workers lost", extra={"jobs": lost})
        patience = timedelta(seconds=self._settings.queue.resubmit_s)
        try:
            empty = {name: self._queue.empty(name) for name in ("segment", "deliver")}
        except QueueUnavailable as error:
            self._broker(works=False, reason=error.reason())
            return
        again = self._catalogue.jobs.repost_unclaimed(patience, broker_empty=empty["segment"])
        if again:
            log.warning("jobs submitted again", extra={"jobs": again})
        self._catalogue.deliveries.due_jobs(broker_empty=empty["deliver"], resubmit_after=patience)

    def _broker(self, *, works: bool, reason: str = "") -> None:
        if works != self._broker_works:
            self._broker_works = works
            log.log(logging.INFO if works else logging.ERROR, reason or "the broker answers again")
