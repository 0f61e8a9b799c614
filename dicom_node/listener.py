"""The node's C-STORE SCP: what it takes lies fsynced in the spool and stands in the ledger before Success.

Whatever is refused has a name, in the status that the sender sees and in the ledger.
"""

import logging
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydicom.uid import AllTransferSyntaxes, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.acceptor import Acceptor
from dicom_node.association import Limits, StoreRequest, Terms
from dicom_node.errors import (
    AssociationBroken,
    ContextMismatch,
    DiskNearlyFull,
    NotParseable,
    ObjectRefused,
    SettingsInvalid,
    SpoolFailed,
)
from dicom_node.records import AssociationEnding, Ledger, Peer, StoredInstance
from dicom_node.settings import ListenerSettings
from dicom_node.slices import parse_header, slice_header, text
from dicom_node.spool import FileMeta, Incoming, Spool, Stored

_LOG = logging.getLogger(__name__)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NOT_STORABLE = ("1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.7")
"""Pixel data by reference (JPIP) and live video: their pixels would not come with the object."""
_RECENT = ("1.2.840.10008.1.2.8.1", *(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112)))
"""Deflated Image Frame and JPEG XL, which pydicom does not list yet."""


@cache
def supported_contexts() -> dict[str, PresentationContext]:
    """Verification and every storage SOP Class, each with every transfer syntax that carries its pixels.

    Explicit VR Little Endian first: of several proposed in one context the first one here is chosen.
    """
    first = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    others = [uid for uid in AllTransferSyntaxes if uid not in first and not uid.startswith(_NOT_STORABLE)]
    contexts = {
        str(item.abstract_syntax): build_context(str(item.abstract_syntax), [*first, *others, *_RECENT])
        for item in AllStoragePresentationContexts
    }
    return {str(Verification): build_context(Verification, list(first))} | contexts


class NodeListener:
    """Listens from `start` to `stop`. `ledger`: the catalogue, or MemoryLedger."""

    def __init__(self, settings: ListenerSettings, ae_title: str, spool: Spool, ledger: Ledger) -> None:
        self._settings = settings
        self._ae_title = ae_title
        self._spool = spool
        self._ledger = ledger
        self._acceptor: Acceptor | None = None

    @property
    def port(self) -> int:
        """The TCP port, also where the settings say 0; 0 while it does not listen."""
        return self._acceptor.port if self._acceptor else 0

    def start(self) -> None:
        """Records what a killed predecessor stored but did not record, then accepts associations.

        Raises SettingsInvalid where the address cannot be had.
        """
        self._adopt()
        limits = Limits(associations=self._settings.max_associations, idle=self._settings.idle_timeout_s)
        address = (self._settings.host, self._settings.port)
        try:
            self._acceptor = Acceptor(address, Terms(supported_contexts(), self, limits))
        except OSError as error:
            raise SettingsInvalid(
                f"The listener cannot have {address[0]}:{address[1]}: {error.strerror}.",
                remedy="Another program may hold the port; ports below 1024 need a privilege.",
            ) from error
        self._acceptor.start()
        _LOG.info("listening", extra={"host": address[0], "port": self.port, "ae_title": self._ae_title})

    def stop(self) -> None:
        """Lets open associations end for a moment and cuts the rest; after it nothing arrives any more."""
        if self._acceptor:
            self._acceptor.stop()
            self._acceptor = None

    def admit(self, peer: Peer) -> tuple[int, int, int] | None:
        """Rejects unknown calling AE titles, and a wrong called one where the settings want that."""
        name = ""
        allowed = self._settings.allowed_calling_ae
        if allowed and peer.calling_ae not in allowed:
            name, answer = "CallingAENotRecognised", (1, 1, 3)
        elif self._settings.require_called_ae and peer.called_ae != self._ae_title:
            name, answer = "CalledAENotRecognised", (1, 1, 7)
        if not name:
            return None
        sentence = f"{peer.calling_ae} at {peer.address} called {peer.called_ae}."
        self._ledger.record_refusal(None, name, sentence)
        return answer

    def opened(self, peer: Peer) -> int:
        """Records the association."""
        return self._ledger.open_association(peer)

    def closed(self, association_id: int, ending: AssociationEnding) -> None:
        """Records its end."""
        self._ledger.close_association(association_id, ending)

    def begin(self, request: StoreRequest) -> "_Arriving":
        """Takes an object; raises ObjectRefused, recorded, where it does not."""
        try:
            return _Arriving(request, self._incoming(request), self._ledger, self._settings.max_object_gb)
        except ObjectRefused as refusal:
            self._ledger.record_refusal(request.association_id, refusal.name, refusal.sentence)
            raise

    def _incoming(self, request: StoreRequest) -> Incoming:
        if request.sop_class_uid != request.context.abstract_syntax:
            raise ContextMismatch("The request's SOP Class is not that of its presentation context.")
        uid = request.sop_instance_uid
        if len(uid) > 64 or not _UID.fullmatch(uid):
            raise ContextMismatch("The request's SOP Instance UID is not a UID.")
        try:
            free = self._spool.free_gb()
        except OSError as error:
            raise SpoolFailed(f"The spool cannot be asked for space: {error.strerror}.") from error
        if free < self._settings.min_free_gb:
            raise DiskNearlyFull(f"{free:.1f} GB are free, {self._settings.min_free_gb:g} GB are wanted.")
        return self._spool.receive(FileMeta(request.context.transfer_syntax, request.sop_class_uid, uid))

    def _adopt(self) -> None:
        """Files that were complete when a predecessor was killed before their row: nothing is lost."""
        for pending in self._spool.sweep():
            try:
                instance = instance_from(pending, self._spool.stored_at(pending), None)
            except (NotParseable, OSError) as error:
                _LOG.error("left in the spool unrecorded: %s", pending.name, extra={"error": str(error)})
                continue
            if not self._ledger.known(instance.sop_instance_uid, instance.digest):
                self._ledger.record(instance)
                _LOG.warning("adopted an object that was stored but not recorded")
            self._spool.forget(pending)


def instance_from(file: Path, stored: Stored, association_id: int | None) -> StoredInstance:
    """The ledger's record of a file of the spool; raises NotParseable."""
    dataset = parse_header(file)
    return StoredInstance(
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        sop_class_uid=text(dataset, "SOPClassUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        study_instance_uid=text(dataset, "StudyInstanceUID"),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        digest=stored.digest,
        size=stored.size,
        path=stored.path,
        received_at=datetime.now(UTC),
        association_id=association_id,
        patient_id=text(dataset, "PatientID"),
        accession_number=text(dataset, "AccessionNumber"),
        header=slice_header(dataset),
    )


class _Arriving:
    """One object on its way through checks, spool and ledger."""

    def __init__(self, request: StoreRequest, incoming: Incoming, ledger: Ledger, max_gb: float) -> None:
        self._request = request
        self._incoming = incoming
        self._ledger = ledger
        self._most = int(max_gb * 1e9)

    def write(self, data: memoryview) -> None:
        """The next bytes, exactly as received."""
        try:
            self._incoming.write(data)
        except ObjectRefused as refusal:
            self._refused(refusal)
            raise
        if self._incoming.size > self._most:
            self._refused(ObjectRefused(f"The object is larger than {self._most / 1e9:g} GB."))
            raise AssociationBroken("An object is larger than listener.max_object_gb.", reason=0)

    def finish(self) -> None:
        """Checks the object, stores and records it; after this it is safe."""
        try:
            instance = self._checked()
            again = self._incoming.is_stored() and self._ledger.known(
                instance.sop_instance_uid, instance.digest
            )
            if not again:
                self._incoming.commit()
                self._ledger.record(instance)
        except NotParseable as refusal:
            self._refused(refusal, self._quarantined())
            raise
        except ObjectRefused as refusal:
            self._refused(refusal)
            raise
        self._incoming.settle()

    def discard(self) -> None:
        """Nothing stays behind but what is stored and not yet recorded."""
        self._incoming.discard()

    def _checked(self) -> StoredInstance:
        try:
            instance = instance_from(self._incoming.path, self._incoming.stored, self._request.association_id)
        except OSError as error:
            raise SpoolFailed(f"The spool cannot be read: {error.strerror}.") from error
        request = (self._request.sop_class_uid, self._request.sop_instance_uid)
        if (instance.sop_class_uid, instance.sop_instance_uid) != request:
            raise ContextMismatch("The data set's SOP Class or Instance UID is not that of the request.")
        for uid in (instance.study_instance_uid, instance.series_instance_uid):
            if len(uid) > 64 or not _UID.fullmatch(uid):
                raise NotParseable("The Study or Series Instance UID is not a UID.")
        return instance

    def _quarantined(self) -> str:
        """The bytes' name in the quarantine; empty where the disk does not take them there either."""
        try:
            return self._incoming.quarantine()
        except ObjectRefused as failure:
            _LOG.error("not quarantined: %s", failure.reason())
            return ""

    def _refused(self, refusal: ObjectRefused, path: str = "") -> None:
        _LOG.warning("object refused: %s", refusal.reason())
        self._ledger.record_refusal(self._request.association_id, refusal.name, refusal.sentence, path)
