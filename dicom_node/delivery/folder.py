"""Delivery into a folder, for whatever reads from there."""

import hashlib
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.errors import DestinationRefused, DestinationUnreachable
from dicom_node.records import DeliveryReceipt, ResultObject
from dicom_node.spool import sync_folder


class FolderDeliverer:
    """Writes `<study>/<kind>_<SOP Instance UID>.dcm`: whole and durable, or not at all under that name."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder

    def deliver(self, objects: tuple[ResultObject, ...], folder: Path) -> tuple[DeliveryReceipt, ...]:
        """Copies all; the same object again replaces itself. Raises DestinationUnreachable."""
        try:
            return tuple(self._copy(item, folder / item.path) for item in objects)
        except OSError as error:
            raise DestinationUnreachable(f"{self._folder} takes no file: {error.strerror}.") from error

    def _copy(self, item: ResultObject, source: Path) -> DeliveryReceipt:
        target = self._folder / _safe(item.study_instance_uid)
        target.mkdir(parents=True, exist_ok=True)
        name = f"{item.kind.lower()}_{_safe(item.sop_instance_uid)}.dcm"
        part = target / f".{name}.part"
        with source.open("rb") as reader, part.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        if part.stat().st_size != source.stat().st_size:
            part.unlink()
            raise DestinationUnreachable(f"{self._folder} took only a part of the file.")
        part.replace(target / name)
        sync_folder(target)
        sync_folder(self._folder)
        return DeliveryReceipt(self._name, item.sop_instance_uid, "written", datetime.now(UTC))

    def probe(self) -> str:
        """Whether the folder is there, or can be made, and can be written to."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DestinationUnreachable(f"{self._folder} cannot be made: {error.strerror}.") from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise DestinationRefused(f"{self._folder} cannot be written to.")
        return f"{self._folder} can be written to."


def _safe(uid: str) -> str:
    """A file name; a Study Instance UID comes from the network and may be anything."""
    return (
        uid
        if re.fullmatch(r"[0-9.]{1,64}", uid) and uid.strip(".")
        else hashlib.sha256(uid.encode()).hexdigest()
    )
