"""Codes that the result objects use, and models' codes in highdicom's form."""

from typing import Any

from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept

from models.labels import Code, Label

SCHEME = "99SEGNODE"
"""Designator of segnode's own codes."""

ANATOMICAL_STRUCTURES = frozenset({("123037004", "SCT"), ("91723000", "SCT")})
"""Segment categories whose type is the place itself, not something found at a place (CID 7150)."""

VOLUME = CodedConcept("118565006", "SCT", "Volume")
MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
HOUNSFIELD = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = CodedConcept("1", "UCUM", "no units")
UNITS = frozenset({"mL", "[hnsf'U]", "1"})
"""UCUM units that a report may use."""

ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
MR_SIGNAL = CodedConcept("110852", "DCM", "MR signal intensity")
MEAN = CodedConcept("373098007", "SCT", "Mean")
STANDARD_DEVIATION = CodedConcept("386136009", "SCT", "Standard Deviation")
MINIMUM = CodedConcept("255605001", "SCT", "Minimum")
MAXIMUM = CodedConcept("56851009", "SCT", "Maximum")

PRESENCE = CodedConcept("121052", "DCM", "Presence of property")
ABSENT = CodedConcept("121054", "DCM", "Absent")
EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
QUALITY = CodedConcept("QC01", SCHEME, "Plausibility of the segment")
VOLUME_IMPLAUSIBLE = CodedConcept("QC02", SCHEME, "Volume outside the range expected of the whole structure")
COVERAGE_INCOMPLETE = CodedConcept("QC03", SCHEME, "Structure reaches the edge of the image, may be cut off")

PROCEDURES = {
    "CT": CodedConcept("25045-6", "LN", "CT unspecified body region"),
    "MR": CodedConcept("25056-3", "LN", "MRI unspecified body region"),
    "PT": CodedConcept("44136-0", "LN", "PET unspecified body region"),
}
"""Procedure reported (CID 100) by modality."""


def concept(code: Code) -> CodedConcept:
    """A model's code as highdicom takes it."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def colour(label: Label) -> CIELabColor:
    """The label's sRGB colour as Recommended Display CIELab Value (PS3.3 C.10.7.1.1)."""
    return CIELabColor.from_rgb(*label.colour)


def is_structure(label: Label) -> bool:
    """Whether the label is a normal structure (an organ), so its type says where it is."""
    return (label.category.value, label.category.scheme) in ANATOMICAL_STRUCTURES


def intensity(unit: str, modality: str) -> tuple[Any, Any] | None:
    """Name and unit of the intensities, or None where they have no meaning outside this series."""
    if unit == "HU":
        return ATTENUATION, HOUNSFIELD
    return (MR_SIGNAL, NO_UNITS) if modality == "MR" else None
