"""A small receiving archive for `segnode demo`: keeps every object that it is sent in a folder."""

from pathlib import Path

from dicom_node.listener import NodeListener
from dicom_node.memory import MemoryLedger
from dicom_node.records import StoredInstance
from dicom_node.settings import ListenerSettings
from dicom_node.spool import Spool


class ReceivingArchive:
    """A storage SCP of every SOP Class on one loopback port; `with` starts and stops it.

    What it has is forgotten with its process; the files stay in `folder`.
    """

    def __init__(self, folder: Path, ae_title: str = "ARCHIVE", port: int = 0) -> None:
        self._spool = Spool(folder / "objects", folder / "refused")
        self._ledger = MemoryLedger()
        self._listener = NodeListener(
            ListenerSettings(port=port, min_free_gb=0), ae_title, self._spool, self._ledger
        )
        self.ae_title = ae_title

    @property
    def port(self) -> int:
        """The TCP port while it runs."""
        return self._listener.port

    def start(self) -> None:
        """Accepts objects from now on; raises SettingsInvalid where the port is taken."""
        self._listener.start()

    def stop(self) -> None:
        """Accepts nothing any more."""
        self._listener.stop()

    def __enter__(self) -> "ReceivingArchive":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def instances(self) -> tuple[StoredInstance, ...]:
        """What it has, in the order of arrival."""
        return self._ledger.instances()

    def file(self, instance: StoredInstance) -> Path:
        """The DICOM file of one of them."""
        return self._spool.path(instance.path)
