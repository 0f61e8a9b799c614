"""The broker: it carries a job's number to a worker and nothing else, and may lose it.

Two queues, `segment` and `deliver`, each with one task. The default broker is a folder
(`dicom_node.folder_broker`) and needs no server. Redis by URL. Whatever a broker
loses, the reconciler submits again.
"""

import os
from collections import deque
from typing import Any, Protocol

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dicom_node.errors import QueueUnavailable
from dicom_node.folder_broker import install as install_folder_broker
from dicom_node.settings import Settings

TASKS = {"segment": "segnode.segment", "deliver": "segnode.deliver"}
"""Task name by queue."""


class JobQueue(Protocol):
    """Where jobs are handed over."""

    def submit(self, job_id: int, queue: str) -> None:
        """Hands the job's number to the broker; raises QueueUnavailable."""

    def empty(self, queue: str) -> bool:
        """Whether the broker holds no message for the queue; raises QueueUnavailable."""


class CeleryQueue:
    """The real queue, over the configured broker."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def submit(self, job_id: int, queue: str) -> None:
        """Hands the job's number to the broker; raises QueueUnavailable."""
        try:
            self._app.send_task(TASKS[queue], args=(job_id,), queue=queue, retry=False, ignore_result=True)
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable(f"The broker does not take jobs: {type(error).__name__}.") from error

    def empty(self, queue: str) -> bool:
        """Whether the broker holds no message for the queue; raises QueueUnavailable."""
        try:
            with self._app.connection_for_write() as connection:
                return int(connection.default_channel._size(queue)) == 0
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable(f"The broker does not answer: {type(error).__name__}.") from error


class MemoryQueue:
    """The fake: a queue in memory, for tests and for running jobs in one process."""

    def __init__(self) -> None:
        self.messages: dict[str, deque[int]] = {name: deque() for name in TASKS}
        self.broken = False

    def submit(self, job_id: int, queue: str) -> None:
        """Keeps the job's number; raises QueueUnavailable while `broken`."""
        if self.broken:
            raise QueueUnavailable("The memory queue is switched off.")
        self.messages[queue].append(job_id)

    def empty(self, queue: str) -> bool:
        """Whether nothing waits."""
        if self.broken:
            raise QueueUnavailable("The memory queue is switched off.")
        return not self.messages[queue]


def make_app(settings: Settings) -> Celery:
    """The Celery application of this node: JSON, late acknowledgement, one message at a time."""
    install_folder_broker()
    app = Celery("segnode", broker=settings.broker_url)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the catalogue brings a lost job back, and counts its attempts
        worker_prefetch_multiplier=1,
        task_default_queue="segment",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
        timezone="UTC",
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_url != "filesystem://":
        return {
            "visibility_timeout": int(settings.queue.longest_job_s * 2),
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "max_retries": 1,  # the outbox tries again, so a submission need not
            "interval_start": 0,
            "interval_step": 0.1,
        }
    return {"folder": os.fspath(settings.node.data / "broker"), "polling_interval": 0.05}
