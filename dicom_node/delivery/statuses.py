"""What storage statuses mean for trying again (PS3.4 table B.2-1, PS3.7 annex C; STOW-RS uses them too)."""

from dicom_node.errors import DestinationRefused

DUPLICATE = 0x0111
"""The destination has this SOP Instance UID: it is ours, since the same work gives the same object."""

_PERMANENT = {0x0106, 0x0115, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122}
_SENTENCES = {
    0x0110: "it failed while processing",
    0x0122: "it does not support the SOP Class",
    0x0124: "this node is not authorised",
    0xA700: "it is out of resources",
}


def refusal(
    subject: str, status: int | None = None, comment: str = "", *, permanent: bool = False
) -> DestinationRefused:
    """The error for a status; 0xA9xx and 0xCxxx say that the object itself is the problem."""
    if status is None:
        error = DestinationRefused(subject)
    else:
        known = _SENTENCES.get(status) or {0xA9: "it finds the data set unfit", 0xA7: _SENTENCES[0xA700]}.get(
            status >> 8, "it does not understand the object" if status >> 12 == 0xC else ""
        )
        details = ", ".join(part for part in (f"0x{status:04X}", known, comment[:64]) if part)
        error = DestinationRefused(f"{subject}: {details}.", status=status)
        permanent = status in _PERMANENT or status >> 8 == 0xA9 or status >> 12 == 0xC
    error.permanent = permanent
    return error
