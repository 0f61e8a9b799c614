"""The error tree of `dicom_node`.

NodeError
├── SettingsInvalid            the configuration cannot be used as it stands
├── ObjectRefused              a received object is not taken; `status` is the DIMSE status
│   ├── NotParseable               0xC000, and the bytes are quarantined
│   ├── ContextMismatch            0xA900: the data set is not what its presentation context says
│   ├── DiskNearlyFull             0xA700
│   └── SpoolFailed                0x0110: the disk failed
├── AssociationBroken          a peer broke the protocol, fell silent or went away
├── SeriesUnreadable           the pixels of a series cannot be turned into a volume
│   ├── FileDamaged  PixelsUndecodable  GeometryMissing  GeometryContradictory
│   └── SliceGap  DuplicatePosition  MixedOrientation  MixedPatients  TooFewSlices  GantryTilt  NotAVolume
├── WritingFailed              a result object could not be written
│   └── VerificationFailed         the object as written differs from the label map
├── DeliveryFailed             a destination did not take an object; tried again later
│   ├── DestinationUnreachable
│   └── DestinationRefused         `permanent` where trying again cannot help
├── CatalogueUnavailable       the catalogue cannot be opened, or its schema is of another version
├── QueueUnavailable           the broker does not answer
├── JobUnknown                 no job has that number
├── TransitionRefused          a job in that state does not take that event
└── LeaseLost                  another worker holds the job by now
"""

from typing import ClassVar

from models.errors import SegnodeError


class NodeError(SegnodeError):
    """The node could not do something with DICOM objects, the catalogue or a peer."""


class SettingsInvalid(NodeError):
    """The configuration cannot be used as it stands."""

    remedy = "`segnode init` writes a commented example; `segnode check` tests it."


class ObjectRefused(NodeError):
    """The received object is not taken."""

    status: ClassVar[int] = 0xC000
    """DIMSE C-STORE status (PS3.4 B.2.3)."""


class NotParseable(ObjectRefused):
    """The data set cannot be parsed; its bytes are in the quarantine folder."""


class ContextMismatch(ObjectRefused):
    """The data set does not match the SOP Class of its presentation context."""

    status = 0xA900


class DiskNearlyFull(ObjectRefused):
    """The spool's disk is nearly full."""

    status = 0xA700
    remedy = "Free disk space or lower listener.min_free_gb; the sender will try again."


class SpoolFailed(ObjectRefused):
    """The object could not be written to the spool."""

    status = 0x0110
    remedy = "Look at the disk of the data folder; the sender will try again."


class AssociationBroken(NodeError):
    """The peer broke the protocol, fell silent or went away."""


class SeriesUnreadable(NodeError):
    """The series cannot be turned into a volume."""


class FileDamaged(SeriesUnreadable):
    """A stored object is missing from the spool or differs from its digest."""


class PixelsUndecodable(SeriesUnreadable):
    """The pixel data cannot be decoded."""


class GeometryMissing(SeriesUnreadable):
    """An image lacks the attributes that place it in the patient."""


class GeometryContradictory(SeriesUnreadable):
    """The images contradict each other about size, spacing or frame of reference."""


class SliceGap(SeriesUnreadable):
    """At least one slice is missing between two others."""


class DuplicatePosition(SeriesUnreadable):
    """Several images lie at the same position."""


class MixedOrientation(SeriesUnreadable):
    """The images of the series have different orientations."""


class MixedPatients(SeriesUnreadable):
    """The images of the series name different patients."""


class TooFewSlices(SeriesUnreadable):
    """The series has too few slices for a volume."""


class GantryTilt(SeriesUnreadable):
    """The gantry was tilted: the slices are sheared against each other."""


class NotAVolume(SeriesUnreadable):
    """The series holds no image that can be a slice of a volume."""


class WritingFailed(NodeError):
    """The result object could not be written."""


class VerificationFailed(WritingFailed):
    """The result object as written differs from the label map; it was not sent."""


class DeliveryFailed(NodeError):
    """The destination did not take the objects."""

    permanent: bool = False


class DestinationUnreachable(DeliveryFailed):
    """The destination cannot be reached."""


class DestinationRefused(DeliveryFailed):
    """The destination refused an object."""


class CatalogueUnavailable(NodeError):
    """The catalogue cannot be opened."""


class QueueUnavailable(NodeError):
    """The broker does not answer."""


class JobUnknown(NodeError):
    """No job has that number."""

    remedy = "`segnode jobs list` shows the known ones."


class TransitionRefused(NodeError):
    """A job in that state does not take that event."""


class LeaseLost(NodeError):
    """The worker's lease on the job has ended; another worker may hold it."""
