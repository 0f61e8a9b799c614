"""Command sets of C-ECHO and C-STORE (PS3.7 section 9.3 and annex E), as bytes and as plain data."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.errors import AssociationBroken
from dicom_node.upper_layer import data_header

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
NO_DATA_SET = 0x0101


@dataclass(frozen=True)
class Command:
    """A request's command set (PS3.7 annex E), as far as an SCP of C-ECHO and C-STORE looks at it."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool

    @classmethod
    def decode(cls, data: bytes) -> "Command":
        """From implicit VR little endian; raises AssociationBroken."""
        found = _elements(data)
        sop_class, instance = (_text(found, element) for element in (0x0002, 0x1000))
        kind = _number(found, 0x0800)
        return cls(_number(found, 0x0100), _number(found, 0x0110), sop_class, instance, kind != NO_DATA_SET)

    def encoded(self) -> bytes:
        """The request's command set, of medium priority."""
        values = [
            (0x0002, _uid(self.sop_class_uid)),
            (0x0100, _US(self.field)),
            (0x0110, _US(self.message_id)),
        ]
        if self.has_data_set:
            values += [(0x0700, _US(0)), (0x0800, _US(1)), (0x1000, _uid(self.sop_instance_uid))]
        else:
            values.append((0x0800, _US(NO_DATA_SET)))
        return _command_set(values)

    def answer(self, context_id: int, status: int, comment: str = "") -> bytes:
        """The response in one P-DATA-TF PDU. `comment`: Error Comment (0000,0902), no patient data."""
        values = [
            (0x0002, _uid(self.sop_class_uid)),
            (0x0100, _US(self.field | 0x8000)),
            (0x0120, _US(self.message_id)),
            (0x0800, _US(NO_DATA_SET)),
            (0x0900, _US(status)),
        ]
        if comment:
            text = comment.encode("ascii", "replace")[:64]
            values.append((0x0902, text + b" " * (len(text) % 2)))
        if self.sop_instance_uid:
            values.append((0x1000, _uid(self.sop_instance_uid)))
        data = _command_set(values)
        return data_header(context_id, 3, len(data)) + data


@dataclass(frozen=True)
class Answer:
    """A response's command set: `status` (PS3.7 annex C) and the peer's comment."""

    message_id: int
    status: int
    comment: str

    @classmethod
    def decode(cls, data: bytes) -> "Answer":
        """From implicit VR little endian; raises AssociationBroken."""
        found = _elements(data)
        return cls(_number(found, 0x0120), _number(found, 0x0900), _text(found, 0x0902))


_US = struct.Struct("<H").pack


def _uid(uid: str) -> bytes:
    return uid.encode("ascii", "replace") + b"\0" * (len(uid) % 2)


def _command_set(values: Sequence[tuple[int, bytes]]) -> bytes:
    """Group 0000 in implicit VR little endian; the values in the order of their element numbers."""
    elements = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _elements(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, at)
        if group or at + 8 + length > len(data):
            raise AssociationBroken("The command set cannot be decoded.", reason=6)
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _number(found: Mapping[int, bytes], element: int) -> int:
    value = found.get(element, b"")
    if len(value) != 2:
        raise AssociationBroken(f"The command set lacks (0000,{element:04X}).", reason=6)
    return int.from_bytes(value, "little")


def _text(found: Mapping[int, bytes], element: int) -> str:
    return found.get(element, b"").decode("ascii", "replace").strip("\0 ")
