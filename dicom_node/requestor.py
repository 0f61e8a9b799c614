"""An association from the requestor's side: C-ECHO, and C-STORE of files, sent as they are.

Every wait has an end: a PACS that stops reading or answering costs `timeout`, then DestinationUnreachable.
"""

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.commands import C_ECHO_RQ, C_STORE_RQ, Answer, Command
from dicom_node.errors import AssociationBroken, DestinationRefused, DestinationUnreachable, NotParseable
from dicom_node.slices import parse_header, text
from dicom_node.spool import FileMeta, read_meta
from dicom_node.upper_layer import (
    APPLICATION_CONTEXT,
    MAX_PDU,
    P_DATA,
    RELEASE_RQ_PDU,
    PduStream,
    abort_pdu,
    data_header,
    our_user_information,
    values,
)

_ASSOCIATE_AC, _ASSOCIATE_RJ = 2, 3
_HEADER_SIZE = 12
_SMALLEST = 4096  # a peer that announces less is not believed
MOST_CONTEXTS = 128
_IMPLICIT_LE = "1.2.840.10008.1.2"


@dataclass(frozen=True)
class DicomFile:
    """A file that can be sent; its data set begins at `offset`."""

    path: Path
    meta: FileMeta
    offset: int

    @classmethod
    def at(cls, path: Path) -> "DicomFile":
        """Raises NotParseable or OSError."""
        meta, offset = read_meta(path)
        return cls(path, meta, offset)

    @property
    def context(self) -> tuple[str, str]:
        """SOP Class and transfer syntax, the presentation context that it needs."""
        return self.meta.sop_class_uid, self.meta.transfer_syntax_uid


@dataclass(frozen=True)
class RemoteEntity:
    """Whom to call, and as whom; `timeout` in seconds for each step."""

    host: str
    port: int
    ae_title: str
    calling_ae: str
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


class StoreAssociation:
    """An open association; leave it with `with`: it is released, or aborted after an error.

    Raises DestinationUnreachable where the peer is not there, or not any more, DestinationRefused where it
    rejects the association.
    """

    def __init__(self, peer: RemoteEntity, contexts: Iterable[tuple[str, str]] = ()) -> None:
        self._peer = peer
        try:
            self._socket = socket.create_connection((peer.host, peer.port), timeout=peer.timeout)
        except OSError as error:
            raise DestinationUnreachable(f"{peer} does not answer: {error.strerror or error}.") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = PduStream(self._socket)
        self._accepted: dict[tuple[str, str], int] = {}
        self._room = MAX_PDU
        self._message = 0
        try:
            self._negotiate([(str(Verification), _IMPLICIT_LE), *contexts])
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "StoreAssociation":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._stream.send(RELEASE_RQ_PDU, self._peer.timeout)
                self._stream.next(self._peer.timeout, self._peer.timeout)
            else:
                self._stream.send(abort_pdu(0), within=1.0)
        except AssociationBroken:
            return  # every object has its answer by now
        finally:
            self._socket.close()

    def takes(self, file: DicomFile) -> bool:
        """Whether the peer accepted the file's SOP Class with its transfer syntax."""
        return file.context in self._accepted

    def echo(self) -> None:
        """C-ECHO; raises DestinationRefused where the peer does not verify."""
        context = self._accepted.get((str(Verification), _IMPLICIT_LE))
        if context is None:
            raise DestinationRefused(f"{self._peer} does not accept the Verification SOP Class.")
        self._message += 1
        command = Command(C_ECHO_RQ, self._message, str(Verification), "", False).encoded()
        self._send(data_header(context, 3, len(command)) + command)
        if status := self._answer().status:
            raise DestinationRefused(f"{self._peer} answered C-ECHO with 0x{status:04X}.")

    def store(self, file: DicomFile) -> Answer:
        """C-STORE of one file that the peer `takes`; the peer's answer, whatever its status.

        Raises DestinationUnreachable where no answer comes: then nobody knows, and the identical object may
        be sent again. Raises OSError where the file cannot be read.
        """
        context = self._accepted[file.context]
        self._message = self._message % 65535 + 1
        meta = file.meta
        command = Command(
            C_STORE_RQ, self._message, meta.sop_class_uid, meta.sop_instance_uid, True
        ).encoded()
        head = data_header(context, 3, len(command)) + command
        buffer = bytearray(_HEADER_SIZE + self._room)
        body = memoryview(buffer)[_HEADER_SIZE:]
        with file.path.open("rb", buffering=0) as stream:
            left = stream.seek(0, 2) - stream.seek(file.offset)
            while left > 0:
                count = stream.readinto(body[: min(left, self._room)]) or 0
                left -= count
                if not count:
                    raise OSError(f"{file.path.name} became shorter while it was sent")
                buffer[:_HEADER_SIZE] = data_header(context, 0 if left else 2, count)
                self._send(
                    head + buffer[: _HEADER_SIZE + count]
                    if head
                    else memoryview(buffer)[: _HEADER_SIZE + count]
                )
                head = b""
        return self._answer()

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._stream.send(data, self._peer.timeout)
        except AssociationBroken as broken:
            raise DestinationUnreachable(f"{self._peer}: {broken.sentence}") from broken

    def _next(self) -> tuple[int, memoryview]:
        try:
            return self._stream.next(self._peer.timeout, self._peer.timeout)
        except AssociationBroken as broken:
            raise DestinationUnreachable(f"{self._peer}: {broken.sentence}") from broken

    def _answer(self) -> Answer:
        """The response to the last request."""
        command = b""
        while True:
            kind, body = self._next()
            if kind != P_DATA:
                raise DestinationUnreachable(f"{self._peer} ended the association instead of answering.")
            try:
                for value in values(body):
                    command += value.data
                    if value.is_last:
                        answer = Answer.decode(command)
                        if answer.message_id != self._message:
                            raise AssociationBroken("It answered another message.")
                        return answer
            except AssociationBroken as broken:
                raise DestinationUnreachable(f"{self._peer}: {broken.sentence}") from broken

    def _negotiate(self, contexts: list[tuple[str, str]]) -> None:
        request = A_ASSOCIATE()
        request.application_context_name = APPLICATION_CONTEXT
        request.calling_ae_title = self._peer.calling_ae
        request.called_ae_title = self._peer.ae_title
        wanted = dict(enumerate(dict.fromkeys(contexts)))
        proposed = []
        for number, (sop_class, syntax) in wanted.items():
            context = build_context(sop_class, syntax)
            context.context_id = 2 * number + 1
            proposed.append(context)
        request.presentation_context_definition_list = proposed
        request.user_information = our_user_information()
        self._send(A_ASSOCIATE_RQ(request).encode())
        kind, body = self._next()
        if kind == _ASSOCIATE_RJ:
            why = _REJECTIONS.get((body[2], body[3]), f"source {body[2]}, reason {body[3]}")
            raise DestinationRefused(
                f"{self._peer} rejects associations from {self._peer.calling_ae}: {why}."
            )
        if kind != _ASSOCIATE_AC:
            raise DestinationUnreachable(f"{self._peer} aborted the association.")
        try:
            acceptance = A_ASSOCIATE_AC()
            acceptance.decode(struct.pack(">BBL", kind, 0, len(body)) + bytes(body))
            answer = acceptance.to_primitive()
            accepted = [c for c in answer.presentation_context_definition_results_list if c.result == 0]
            length = answer.maximum_length_received or MAX_PDU
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            struct.error,
            NotImplementedError,
        ) as error:
            raise DestinationUnreachable(f"{self._peer} sent an answer that cannot be decoded.") from error
        self._accepted = {wanted[(int(c.context_id or 1) - 1) // 2]: int(c.context_id or 1) for c in accepted}
        self._room = min(max(length, _SMALLEST), MAX_PDU) - 6


_REJECTIONS = {
    (1, 3): "it does not know this calling AE title",
    (1, 7): "it does not know the AE title called",
    (3, 1): "it is congested",
    (3, 2): "it has too many associations",
}
"""By source and reason (PS3.8 table 9-21)."""


def files_in(folder: Path) -> tuple[list[DicomFile], list[tuple[Path, str]]]:
    """Every DICOM file below the folder in the order of names, and what cannot be sent with its reason.

    A request names the UIDs of the data set; where they cannot be read, those of the file meta information.
    """
    found, skipped = [], []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            found.append(_named_by_data_set(DicomFile.at(path)))
        except NotParseable as error:
            skipped.append((path, error.sentence))
        except OSError as error:
            skipped.append((path, f"The file cannot be read: {error.strerror}."))
    return found, skipped


def _named_by_data_set(file: DicomFile) -> DicomFile:
    try:
        dataset = parse_header(file.path)
    except NotParseable:  # sent all the same: whether to take it is the peer's decision
        return file
    uids = text(dataset, "SOPClassUID") or file.meta.sop_class_uid, text(dataset, "SOPInstanceUID")
    return replace(file, meta=FileMeta(file.meta.transfer_syntax_uid, *uids))
