"""DICOM's upper layer as an acceptor sees it (PS3.8 section 9.3): bounded PDUs, negotiation, command sets.

pynetdicom encodes and decodes the association's PDUs and negotiates the contexts. The data phase is read
here, because there everything must be bounded: each PDU by a length and a deadline, whoever the peer is.
"""

import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicom_node.errors import AssociationBroken
from dicom_node.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 1, 4, 5, 7
RELEASE_RQ_PDU = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))
RELEASE_RP_PDU = bytes((6, 0, 0, 0, 0, 4, 0, 0, 0, 0))
MAX_PDU = 256 * 1024
"""Bytes of a P-DATA-TF PDU that we announce, and accept."""
_SLACK = 64  # some peers count the PDU's own header
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_HEADER = struct.Struct(">BBL")
_DATA_VALUE = struct.Struct(">LBB")

# What pynetdicom's decoders raise on bytes that are no A-ASSOCIATE-RQ.
_UNDECODABLE = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError, struct.error,
)  # fmt: skip


def abort_pdu(reason: int) -> bytes:
    """An A-ABORT from the service provider (PS3.8 table 9-26)."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, reason))


def rejection_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


class PduStream:
    """The peer's PDUs one by one. A PDU's body is a view that holds until the next one is asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(MAX_PDU + _SLACK + _HEADER.size)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0

    def next(self, begins_within: float, ends_within: float) -> tuple[int, memoryview]:
        """Type and body of the next PDU; raises AssociationBroken where it does not come, or not in time.

        `begins_within`, `ends_within`: seconds until its first byte, and from there until its last.
        """
        self._need(1, time.monotonic() + begins_within)
        deadline = time.monotonic() + ends_within
        self._need(_HEADER.size, deadline)
        kind, _, length = _HEADER.unpack_from(self._buffer, self._start)
        if not 1 <= kind <= 7:
            raise AssociationBroken("The peer does not speak DICOM.", reason=1)
        if length > MAX_PDU + _SLACK:
            raise AssociationBroken(f"The peer announced a PDU of {length} bytes.", reason=6)
        self._need(_HEADER.size + length, deadline)
        begin = self._start + _HEADER.size
        self._start = begin + length
        return kind, self._view[begin : self._start]

    def _need(self, wanted: int, deadline: float) -> None:
        """Reads until `wanted` bytes lie ready."""
        if self._start == self._stop:
            self._start = self._stop = 0
        if self._start + wanted > len(self._buffer):
            self._buffer[: self._stop - self._start] = self._buffer[self._start : self._stop]
            self._start, self._stop = 0, self._stop - self._start
        while self._stop - self._start < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssociationBroken("The peer fell silent.", reason=0)
            try:
                self._socket.settimeout(left)
                count = self._socket.recv_into(self._view[self._stop :])
            except TimeoutError:
                continue
            except OSError as error:
                raise AssociationBroken(f"The connection broke: {error.strerror}.") from error
            if not count:
                raise AssociationBroken("The peer closed the connection without a release.")
            self._stop += count

    def send(self, pdu: bytes | bytearray | memoryview, within: float = 30.0) -> None:
        """Sends in one write, so that no delayed acknowledgement holds the second half back."""
        try:
            self._socket.settimeout(within)
            self._socket.sendall(pdu)
        except OSError as error:
            raise AssociationBroken(f"The peer takes no answer: {error.strerror or 'timeout'}.") from error

    def part(self, within: float) -> None:
        """After our last PDU: waits a moment for the peer to close first, so that it reads that PDU."""
        deadline = time.monotonic() + within
        try:
            for _ in range(16):  # a peer that goes on talking instead is cut off
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                if not self._socket.recv_into(self._view):
                    return
        except OSError:
            return


@dataclass(frozen=True)
class Value:
    """One presentation data value (PS3.8 section 9.3.5.1 and annex E): a fragment of a message."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def values(body: memoryview) -> Iterator[Value]:
    """The fragments in a P-DATA-TF body; raises AssociationBroken where their lengths do not fit."""
    at = 0
    while at < len(body):
        if at + 6 > len(body):
            raise AssociationBroken("A P-DATA PDU ends within a fragment.", reason=6)
        length, context_id, control = _DATA_VALUE.unpack_from(body, at)
        if length < 2 or at + 4 + length > len(body):
            raise AssociationBroken("A fragment has an impossible length.", reason=6)
        yield Value(context_id, bool(control & 1), bool(control & 2), body[at + 6 : at + 4 + length])
        at += 4 + length


def data_header(context_id: int, control: int, length: int) -> bytes:
    """What goes before one fragment of `length` bytes in a P-DATA-TF PDU of its own.

    `control`: 1 for a command, plus 2 for the last fragment.
    """
    return _HEADER.pack(P_DATA, 0, length + 6) + _DATA_VALUE.pack(length + 2, context_id, control)


@dataclass(frozen=True)
class Context:
    """One accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Negotiated:
    """What the peer asked for, and our answer if we take it."""

    calling_ae: str
    called_ae: str
    contexts: Mapping[int, Context]
    acceptance: bytes
    known_application: bool


def negotiate(body: memoryview, supported: Mapping[str, PresentationContext]) -> Negotiated:
    """Decodes an A-ASSOCIATE-RQ and prepares the acceptance; raises AssociationBroken.

    `supported` maps abstract syntaxes to contexts whose transfer syntaxes are in order of preference.
    """
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(_HEADER.pack(ASSOCIATE_RQ, 0, len(body)) + bytes(body))
        wanted = request.to_primitive()
        proposed = wanted.presentation_context_definition_list
        ours = [supported[uid] for uid in {str(cx.abstract_syntax) for cx in proposed} if uid in supported]
        decided, _ = negotiate_as_acceptor(proposed, ours)
        acceptance = A_ASSOCIATE_AC(_acceptance(wanted, decided)).encode()
    except _UNDECODABLE as error:
        raise AssociationBroken("The A-ASSOCIATE-RQ cannot be decoded.", reason=6) from error
    contexts = {
        cx.context_id: Context(str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
        for cx in decided
        if cx.result == 0 and cx.context_id is not None
    }
    known = wanted.application_context_name == APPLICATION_CONTEXT
    return Negotiated(wanted.calling_ae_title, wanted.called_ae_title, contexts, acceptance, known)


def _acceptance(request: A_ASSOCIATE, decided: Sequence[PresentationContext]) -> A_ASSOCIATE:
    answer = A_ASSOCIATE()
    answer.application_context_name = request.application_context_name
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = list(decided)
    answer.user_information = our_user_information()
    return answer


def our_user_information() -> list[Any]:
    """Our maximum PDU length and who we are (PS3.8 annex D, PS3.7 annex D.3.3)."""
    length, class_uid, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = MAX_PDU
    class_uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, class_uid, version]
