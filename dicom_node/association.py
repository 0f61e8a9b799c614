"""One association from the acceptor's side: C-ECHO and C-STORE, bounded by construction.

One thread and one buffer per peer. Data sets are handed on fragment by fragment as they arrive, so memory
does not depend on an object's size, and a slow receiver makes the peer wait. A peer that is silent, endless,
slower than a floor or not speaking DICOM loses its connection, and nothing else happens.
"""

import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pynetdicom.presentation import PresentationContext

from dicom_node.commands import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command
from dicom_node.errors import AssociationBroken, NodeError, ObjectRefused, SpoolFailed
from dicom_node.records import AssociationEnding, Peer
from dicom_node.upper_layer import (
    ABORT,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RP_PDU,
    RELEASE_RQ,
    Context,
    Negotiated,
    PduStream,
    Value,
    abort_pdu,
    negotiate,
    rejection_pdu,
    values,
)

_LOG = logging.getLogger(__name__)
_MAX_COMMAND = 16 * 1024
_UNRECOGNISED_OPERATION = 0x0211


@dataclass(frozen=True)
class Limits:
    """What one acceptor puts up with; times in seconds."""

    associations: int = 32
    idle: float = 60.0
    negotiation: float = 10.0
    pdu: float = 30.0
    grace: float = 60.0
    """An object may take this long whatever its size; beyond, it must come at `slowest` bytes a second."""
    slowest: float = 20_000.0


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request as announced by its command set."""

    association_id: int
    sop_class_uid: str
    sop_instance_uid: str
    context: Context


class Reception(Protocol):
    """One object while it arrives."""

    def write(self, data: memoryview) -> None:
        """Takes the next bytes; raises ObjectRefused, or AssociationBroken to cut the peer off."""

    def finish(self) -> None:
        """Returns when the object is safe, and Success is answered; raises NodeError otherwise."""

    def discard(self) -> None:
        """The peer went away in the middle, or a method raised: nothing stays behind."""


class Receiver(Protocol):
    """Decides about associations and objects."""

    def admit(self, peer: Peer) -> tuple[int, int, int] | None:
        """None, or result, source and reason of the rejection (PS3.8 table 9-21)."""

    def opened(self, peer: Peer) -> int:
        """Records the association; its number."""

    def closed(self, association_id: int, ending: AssociationEnding) -> None:
        """Records its end."""

    def begin(self, request: StoreRequest) -> Reception:
        """Takes an object; raises ObjectRefused where it does not."""


@dataclass(frozen=True)
class Terms:
    """On what terms peers are served; `supported`: contexts by abstract syntax, best syntax first."""

    supported: Mapping[str, PresentationContext]
    receiver: Receiver
    limits: Limits = Limits()


@dataclass
class _Message:
    """The DIMSE message that is arriving."""

    context_id: int
    command_bytes: bytearray = field(default_factory=bytearray)
    command: Command | None = None
    reception: Reception | None = None
    refusal: ObjectRefused | None = None
    started: float = field(default_factory=time.monotonic)
    received: int = 0


class Association:
    """One connection from the first byte to the last; `full`: reject it, there are too many."""

    def __init__(self, connection: socket.socket, address: str, terms: Terms, full: bool) -> None:
        self._stream = PduStream(connection)
        self._address = address
        self._terms = terms
        self._full = full
        self._receiver = terms.receiver
        self._limits = terms.limits
        self._contexts: Mapping[int, Context] = {}
        self._message: _Message | None = None
        self._id = 0

    def run(self) -> None:
        """Serves the peer until it releases, goes away or misbehaves."""
        try:
            asked = self._negotiate()
            if asked is None:
                return
            peer = Peer(asked.calling_ae, asked.called_ae, self._address)
            self._id = self._receiver.opened(peer)
            ending = AssociationEnding.ABORTED
            try:
                self._stream.send(asked.acceptance)
                self._serve()
                ending = AssociationEnding.RELEASED
            finally:
                if self._message and self._message.reception:
                    self._message.reception.discard()
                self._receiver.closed(self._id, ending)
            self._stream.send(RELEASE_RP_PDU)
        except AssociationBroken as broken:
            _LOG.info("association ended: %s", broken.sentence, extra={"peer": self._address})
            self._abort(broken)
        except NodeError as error:
            _LOG.error("association aborted: %s", error.reason(), extra={"peer": self._address})
            self._abort(AssociationBroken(reason=0))
        self._stream.part(within=2.0)

    def _abort(self, broken: AssociationBroken) -> None:
        """Tells a peer that is still there."""
        reason = broken.facts.get("reason")
        if isinstance(reason, int):
            try:
                self._stream.send(abort_pdu(reason), within=1.0)
            except AssociationBroken:
                return

    def _negotiate(self) -> Negotiated | None:
        """The request, if it is taken."""
        kind, body = self._stream.next(self._limits.negotiation, self._limits.negotiation)
        if kind != ASSOCIATE_RQ:
            raise AssociationBroken("The peer did not begin with an association request.", reason=2)
        asked = negotiate(body, self._terms.supported)
        refusal = self._receiver.admit(Peer(asked.calling_ae, asked.called_ae, self._address))
        if not asked.known_application:
            refusal = (1, 1, 2)  # application context name not supported
        elif self._full:
            refusal = (2, 3, 2)  # transient: local limit exceeded
        if refusal:
            _LOG.warning("association rejected", extra={"peer": self._address, "reason": refusal})
            self._stream.send(rejection_pdu(*refusal))
            self._stream.part(within=2.0)
            return None
        self._contexts = asked.contexts
        return asked

    def _serve(self) -> None:
        """Returns when the peer releases the association; raises AssociationBroken at every other end."""
        while True:
            kind, body = self._stream.next(self._limits.idle, self._limits.pdu)
            if kind == P_DATA:
                for value in values(body):
                    self._take(value)
            elif kind == RELEASE_RQ and self._message is None:
                return
            elif kind == ABORT:
                raise AssociationBroken("The peer aborted the association.")
            else:
                raise AssociationBroken("The peer sent a PDU that does not belong here.", reason=2)

    def _take(self, value: Value) -> None:
        """The next fragment: of the command set, and then of the data set."""
        message = self._message
        if message is None:
            message = self._message = _Message(value.context_id)
        message.received += len(value.data)
        allowed = self._limits.grace + message.received / self._limits.slowest
        if time.monotonic() - message.started > allowed:
            raise AssociationBroken("The peer sends slower than the floor.", reason=0)
        if value.context_id != message.context_id or value.context_id not in self._contexts:
            raise AssociationBroken("A fragment names another presentation context.", reason=6)
        if value.is_command != (message.command is None):
            raise AssociationBroken("Command and data set are interleaved.", reason=5)
        if not value.is_command:
            self._write(message, value)
            return
        message.command_bytes += value.data
        if len(message.command_bytes) > _MAX_COMMAND:
            raise AssociationBroken("The command set is endless.", reason=6)
        if value.is_last:
            self._begin(message, Command.decode(bytes(message.command_bytes)))

    def _begin(self, message: _Message, command: Command) -> None:
        """The command set is whole."""
        message.command = command
        if command.field == C_STORE_RQ and command.has_data_set:
            context = self._contexts[message.context_id]
            try:
                message.reception = self._receiver.begin(
                    StoreRequest(self._id, command.sop_class_uid, command.sop_instance_uid, context)
                )
            except AssociationBroken:
                raise
            except NodeError as error:
                message.refusal = _refusal(error)
        elif not command.has_data_set:
            self._message = None
            if command.field == C_ECHO_RQ:
                self._stream.send(command.answer(message.context_id, 0))
            elif command.field != C_CANCEL_RQ:
                self._stream.send(command.answer(message.context_id, _UNRECOGNISED_OPERATION))

    def _write(self, message: _Message, value: Value) -> None:
        """A fragment of the data set; after a refusal the rest is read, and answered at its end."""
        if message.reception:
            try:
                message.reception.write(value.data)
                if value.is_last:
                    message.reception.finish()
            except AssociationBroken:
                raise
            except NodeError as error:
                message.refusal = _refusal(error)
                message.reception.discard()
                message.reception = None
        if value.is_last:
            self._answer(message)

    def _answer(self, message: _Message) -> None:
        if message.command is None:
            return
        self._message = None
        status, comment = 0, ""
        if message.refusal:
            status, comment = message.refusal.status, message.refusal.name
        elif message.command.field != C_STORE_RQ:
            status = _UNRECOGNISED_OPERATION
        self._stream.send(message.command.answer(message.context_id, status, comment))


def _refusal(error: NodeError) -> ObjectRefused:
    """What the sender is told: an object that could not be recorded is not taken either."""
    if isinstance(error, ObjectRefused):
        return error
    _LOG.error("object not taken: %s", error.reason())
    return SpoolFailed(error.sentence)
