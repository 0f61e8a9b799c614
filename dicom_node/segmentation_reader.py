"""Reads a BINARY DICOM Segmentation back onto the grid of its source (PS3.3 A.51)."""

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import VerificationFailed
from models.labels import Code, Label, LabelMap
from models.volume import Geometry


def read_segmentation(path: Path, geometry: Geometry) -> LabelMap:
    """The label map that the object holds; segment numbers are the label numbers.

    Every frame must lie on a slice of `geometry`; raises VerificationFailed where one does not.
    """
    dataset = dcmread(path)
    pixels = dataset.pixel_array
    frames = pixels[None] if pixels.ndim == 2 else pixels
    array = np.zeros(geometry.shape, np.uint8)
    inverse = np.linalg.inv(geometry.affine)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame, item in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(value) for value in item.PlanePositionSequence[0].ImagePositionPatient]
        index = inverse @ np.array([*position, 1.0])
        number = round(float(index[0]))
        if np.abs(index[:3] - (number, 0, 0)).max() > 0.01 or not 0 <= number < geometry.shape[0]:
            raise VerificationFailed(f"A frame of the segmentation lies at index {index[:3].round(2)}.")
        owner = item if "SegmentIdentificationSequence" in item else shared  # shared where there is one only
        array[number][frame != 0] = owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return LabelMap(array, geometry, tuple(_label(item) for item in dataset.SegmentSequence))


def _label(item: Dataset) -> Label:
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    category = item.SegmentedPropertyCategoryCodeSequence[0]
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    return Label(
        int(item.SegmentNumber),
        str(item.SegmentLabel),
        _code(category),
        _code(kind),
        _code(modifiers[0]) if modifiers else None,
        _rgb([int(value) for value in item.RecommendedDisplayCIELabValue]),
    )


def _code(item: Dataset) -> Code:
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))


def _rgb(encoded: list[int]) -> tuple[int, int, int]:
    """CIELab as PS3.3 C.10.7.1.1 encodes it (D50) to sRGB 0..255."""
    lightness, a, b = encoded[0] / 655.35, encoded[1] / 257 - 128, encoded[2] / 257 - 128
    fy = (lightness + 16) / 116
    white = np.array([0.9642, 1.0, 0.8251])
    cubes = np.array([fy + a / 500, fy, fy - b / 200])
    xyz = white * np.where(cubes > 6 / 29, cubes**3, (cubes - 4 / 29) * 3 * (6 / 29) ** 2)
    # Bradford-adapted D50 XYZ to linear sRGB
    matrix = np.array([[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]])
    linear = np.clip(matrix @ xyz, 0, 1)
    values = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    red, green, blue = (round(float(value) * 255) for value in values)
    return red, green, blue
