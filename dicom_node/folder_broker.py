"""The broker that needs no server: a folder with one small file for each message.

kombu's own filesystem transport moves a message to the machine's temporary folder before it reads it, keeps
its bindings in a file, and reads files that are half written; a process killed at the wrong moment leaves
rubbish, or a broker that works for nobody any more. Here a message is one file, which is gone once it is
taken, and nothing else is kept.
"""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, virtual

_ABANDONED_S = 5.0


class Channel(virtual.Channel):
    """Messages in the folder of the transport option `folder`, which may vanish at any time."""

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        path = self._folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}.{queue}.msg"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(message), "utf-8")
        except OSError as error:
            raise OperationalError(f"The broker's folder takes no message: {error.strerror}.") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in self._messages(queue):
            try:
                message = json.loads(path.read_text("utf-8"))
                path.unlink()
            except FileNotFoundError:
                continue  # another worker was quicker
            except ValueError:
                self._remove_abandoned(path)
            else:
                return message
        raise Empty

    def _size(self, queue: str) -> int:
        return sum(1 for _ in self._messages(queue))

    def _purge(self, queue: str) -> int:
        messages = list(self._messages(queue))
        for path in messages:
            path.unlink(missing_ok=True)
        return len(messages)

    @property
    def _folder(self) -> Path:
        return Path(self.connection.client.transport_options["folder"])

    def _messages(self, queue: str) -> Iterator[Path]:
        """Files of the queue, oldest first."""
        try:
            return iter(sorted(self._folder.glob(f"*.{queue}.msg")))
        except FileNotFoundError:
            return iter(())

    def _remove_abandoned(self, path: Path) -> None:
        """An unreadable message is being written this moment, or its writer was killed in the middle."""
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
        except FileNotFoundError:
            return


class Transport(virtual.Transport):
    """Stands in for kombu's `filesystem://`."""

    Channel = Channel
    driver_type = driver_name = "filesystem"
    global_state = virtual.BrokerState()  # type: ignore[no-untyped-call]

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        self.state = self.global_state

    def driver_version(self) -> str:
        """For Celery's banner."""
        return "1"


def install() -> None:
    """Makes `filesystem://` mean this transport in this process."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
