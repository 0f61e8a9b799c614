"""Delivery by C-STORE (PS3.4 annex B)."""

from datetime import UTC, datetime
from pathlib import Path

from dicom_node.delivery.statuses import DUPLICATE, refusal
from dicom_node.errors import WritingFailed
from dicom_node.records import DeliveryReceipt, ResultObject
from dicom_node.requestor import DicomFile, RemoteEntity, StoreAssociation
from dicom_node.spool import FileMeta


class StoreScuDeliverer:
    """Sends objects to one storage SCP, all in one association."""

    def __init__(self, name: str, peer: RemoteEntity) -> None:
        self._name = name
        self._peer = peer

    def deliver(self, objects: tuple[ResultObject, ...], folder: Path) -> tuple[DeliveryReceipt, ...]:
        """Sends all; a receipt for each.

        Warnings (0xBxxx) count as stored and stand in the receipt, and so does "duplicate" (0x0111): the
        objects are the same whenever they are sent. Raises DestinationUnreachable, DestinationRefused.
        """
        files = [_file(item, folder) for item in objects]
        receipts = []
        with StoreAssociation(self._peer, [file.context for file in files]) as association:
            for item, file in zip(objects, files, strict=True):
                if not association.takes(file):
                    raise refusal(
                        f"{self._peer} does not accept {item.kind} ({item.sop_class_uid}, transfer syntax "
                        f"{item.transfer_syntax_uid}).",
                        permanent=True,
                    )
                answer = association.store(file)
                if answer.status not in {0, DUPLICATE} and answer.status >> 12 != 0xB:
                    raise refusal(f"{self._peer} refused {item.kind}", answer.status, answer.comment)
                receipts.append(
                    DeliveryReceipt(
                        self._name, item.sop_instance_uid, f"0x{answer.status:04X}", datetime.now(UTC)
                    )
                )
        return tuple(receipts)

    def probe(self) -> str:
        """C-ECHO."""
        with StoreAssociation(self._peer) as association:
            association.echo()
        return f"{self._peer} answered C-ECHO."


def _file(item: ResultObject, folder: Path) -> DicomFile:
    try:
        file = DicomFile.at(folder / item.path)
    except OSError as error:
        raise WritingFailed(f"The recorded object {item.path} cannot be read: {error.strerror}.") from error
    if file.meta != FileMeta(item.transfer_syntax_uid, item.sop_class_uid, item.sop_instance_uid):
        raise WritingFailed(f"The recorded object {item.path} is not what its record says.")
    return file
