"""The two Celery tasks. They carry a job's number; the catalogue knows the rest."""

from celery import Celery

from dicom_node.logs import current_job
from dicom_node.queue import TASKS
from worker.delivering import deliver_job
from worker.segmenting import segment_job
from worker.wiring import Parts


def register(app: Celery, parts: Parts) -> None:
    """Gives the application its tasks, working with these parts."""

    @app.task(name=TASKS["segment"])  # type: ignore[untyped-decorator]
    def segment(job_id: int) -> None:
        """Segments one series."""
        current_job.set(job_id)
        segment_job(parts, job_id)
        parts.reconciler.dispatch()

    @app.task(name=TASKS["deliver"])  # type: ignore[untyped-decorator]
    def deliver(job_id: int) -> None:
        """Sends one job's results."""
        current_job.set(job_id)
        deliver_job(parts, job_id)
