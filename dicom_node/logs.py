"""Every log line is JSON, carries the job's number where there is one, and no patient data."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

current_job: ContextVar[int | None] = ContextVar("current_job", default=None)
"""The job that this thread works on."""

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    An exception is written as its type and place only: messages of foreign libraries may quote values of
    a data set.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (job := current_job.get()) is not None:
            line["job"] = job
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            if record.exc_info[2]:
                trace = record.exc_info[2]
                while trace.tb_next:
                    trace = trace.tb_next
                line["place"] = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        return json.dumps(line, default=str)


def set_up_logging(role: str, level: str = "INFO") -> None:
    """Sends every log line of this process to standard error as JSON. `role`: listen, work ..."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in (
        "pynetdicom",
        "pydicom",
        "httpx",
        "httpcore",
        "celery",
        "kombu",
        "alembic",
        "highdicom",
        "amqp",
    ):
        logging.getLogger(noisy).setLevel(logging.ERROR if noisy != "celery" else logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # a library's warning may quote a data set
