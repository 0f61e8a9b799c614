"""The DICOM Segmentation (PS3.3 A.51): BINARY, on the grid of the source, one segment per label found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.reading import SourceSeries
from dicom_node.slices import text, whole
from dicom_node.writing.codes import colour, concept
from dicom_node.writing.context import MANUFACTURER, ResultContext
from dicom_node.writing.headers import CHARACTER_SET, request_attributes
from models.labels import Label, LabelMap


def build_segmentation(
    source: SourceSeries,
    images: Sequence[Dataset],
    label_map: LabelMap,
    present: Sequence[Label],
    context: ResultContext,
) -> Segmentation:
    """The Segmentation of the labels in `present`, numbered 1, 2, 3 ... in that order; no empty frames.

    `images` are the repaired headers of the source slices (`headers.source_images`), in the volume's order;
    `label_map` is on their grid.
    """
    study = images[0].StudyInstanceUID
    steps = label_map.geometry.spacing
    measures = PixelMeasuresSequence(
        pixel_spacing=(steps[1], steps[2]),
        slice_thickness=images[0].SliceThickness,
        spacing_between_slices=steps[0],
    )
    segmentation = Segmentation(
        source_images=images,
        pixel_array=_renumbered(label_map.array, present),
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(number, label, context, study) for number, label in enumerate(present, start=1)
        ],
        pixel_measures=measures,
        content_label="SEGMENTATION",
        content_description=f"{context.manifest.model.title}"[:64],
        content_creator_name=f"{MANUFACTURER}^",
        omit_empty_frames=True,
        specific_character_set=CHARACTER_SET,
        **context.series(study, "SEG", whole(source.datasets[0], "SeriesNumber") or 0),
    )
    organization = context.uid(study, "SEG", "dimension organization")
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    body_part = text(source.datasets[0], "BodyPartExamined")
    if body_part and len(body_part) <= 16:
        segmentation.BodyPartExamined = body_part
    context.finish(segmentation, images[0], request_attributes(source))
    return segmentation


def _renumbered(array: NDArray[Any], present: Sequence[Label]) -> NDArray[np.uint8]:
    numbers_in_use = [label.number for label in present]
    if numbers_in_use == list(range(1, len(present) + 1)) and array.dtype == np.uint8:
        return array
    table = np.zeros(
        int(np.iinfo(array.dtype).max if array.dtype.itemsize == 1 else array.max()) + 1, np.uint8
    )
    table[numbers_in_use] = np.arange(1, len(present) + 1)
    renumbered: NDArray[np.uint8] = table[array]
    return renumbered


def _description(number: int, label: Label, context: ResultContext, study: str) -> SegmentDescription:
    model = context.manifest.model
    identifier, uid = context.tracking(study, label)
    description = SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=concept(label.category),
        segmented_property_type=concept(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name,
            family=CodedConcept.from_code(codes.DCM.ArtificialIntelligence),
            version=model.version,
            source=MANUFACTURER,
            parameters=context.parameters,
        ),
        tracking_uid=uid,
        tracking_id=identifier,
        display_color=colour(label),
    )
    if label.modifier is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(label.modifier)]
    return description
