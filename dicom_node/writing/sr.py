"""The structured report (PS3.16 TID 1500, Comprehensive 3D SR): what was measured of each segment."""

from collections.abc import Sequence

import highdicom.sr as tid
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.reading import SourceSeries
from dicom_node.slices import whole
from dicom_node.writing import codes as our
from dicom_node.writing.context import MANUFACTURER, ResultContext
from dicom_node.writing.headers import CHARACTER_SET, referenced_requests
from models.labels import Label, Measurement

_Group = tid.VolumetricROIMeasurementsAndQualitativeEvaluations | tid.MeasurementsAndQualitativeEvaluations
"""A measurement group of TID 1500."""


def build_report(
    source: SourceSeries,
    images: Sequence[Dataset],
    measurements: Sequence[Measurement],
    segmentation: Dataset | None,
    context: ResultContext,
    cut_off: frozenset[int] = frozenset(),
) -> tid.Comprehensive3DSR:
    """The report: a volumetric group (TID 1411) per label found, and which labels were not found.

    A label not found has a group of its own (TID 1501) where nothing was found, as a report needs a group,
    else an entry under Qualitative Evaluations: a common validator takes every group of a report for a
    volumetric one as soon as one of them is.
    `segmentation` has the labels found as segments 1, 2, 3 ... in the order of `measurements`; None if there
    is none. `cut_off` are the numbers of labels that reach the first or last slice.
    """
    study = images[0].StudyInstanceUID
    found = [m for m in measurements if m.voxels]
    groups: list[_Group] = []
    if segmentation is not None:
        for number, measurement in enumerate(found, start=1):
            groups.append(_found(number, measurement, images[0], segmentation, context, cut_off))
    absent = [m.label for m in measurements if not m.voxels]
    if not groups:
        groups += [_absent(label, study, context) for label in absent]
    report = tid.MeasurementReport(
        observation_context=_observer(context),
        procedure_reported=our.PROCEDURES.get(images[0].Modality, our.PROCEDURES["CT"]),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=tid.LanguageOfContentItemAndDescendants(
            tid.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )
    if found and absent:
        report[0].ContentSequence.append(_others_absent(absent, context))
    for remark in context.remarks:
        comment = tid.TextContentItem(codes.DCM.Comment, remark, tid.RelationshipTypeValues.CONTAINS)
        report[0].ContentSequence.append(comment)
    when = context.local_time(images[0])
    document = tid.Comprehensive3DSR(
        evidence=[*images, *([segmentation] if segmentation is not None else [])],
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=referenced_requests(source) or None,
        specific_character_set=CHARACTER_SET,
        content_date=when.date(),
        content_time=when.time(),
        **context.series(study, "SR", whole(source.datasets[0], "SeriesNumber") or 0),
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator = our.SCHEME
    scheme.CodingSchemeName = "segnode's own codes"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    document.CodingSchemeIdentificationSequence = [scheme]
    context.finish(document, images[0], [])
    return document


def _observer(context: ResultContext) -> tid.ObservationContext:
    model = context.manifest.model
    device = tid.DeviceObserverIdentifyingAttributes(
        uid=context.device_uid,
        name=context.node_name,
        manufacturer_name=MANUFACTURER,
        model_name=f"{model.name} {model.version}",
    )
    return tid.ObservationContext(
        observer_device_context=tid.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _algorithm(context: ResultContext) -> tid.AlgorithmIdentification:
    model = context.manifest.model
    return tid.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[f"{name}={value}" for name, value in context.parameters.items()],
    )


def _place(label: Label, context: ResultContext) -> tuple[tid.CodedConcept, list[tid.FindingSite]]:
    """Finding and finding site: an organ is found at itself, a lesion in the region that the model is for."""
    if our.is_structure(label):
        side = our.concept(label.modifier) if label.modifier else None
        return our.concept(label.category), [tid.FindingSite(our.concept(label.type), laterality=side)]
    region = tid.CodedConcept(*context.manifest.model.anatomy)
    return our.concept(label.type), [tid.FindingSite(region)]


def _tracking(label: Label, study: str, context: ResultContext) -> tid.TrackingIdentifier:
    identifier, uid = context.tracking(study, label)
    return tid.TrackingIdentifier(uid=uid, identifier=identifier)


def _found(
    number: int,
    measurement: Measurement,
    image: Dataset,
    segmentation: Dataset,
    context: ResultContext,
    cut_off: frozenset[int],
) -> tid.VolumetricROIMeasurementsAndQualitativeEvaluations:
    label = measurement.label
    finding, sites = _place(label, context)
    return tid.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(label, image.StudyInstanceUID, context),
        referenced_segment=tid.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=tid.SourceSeriesForSegmentation(image.SeriesInstanceUID),
        ),
        finding_type=finding,
        finding_sites=sites,
        algorithm_id=_algorithm(context),
        measurements=_values(measurement, image.Modality),
        qualitative_evaluations=_quality(measurement, cut_off) or None,
    )


def _values(measurement: Measurement, modality: str) -> list[tid.Measurement]:
    values = [tid.Measurement(our.VOLUME, round(measurement.volume_ml, 3), our.MILLILITRE)]
    meaning = our.intensity(measurement.unit, modality)
    if meaning is not None:
        name, unit = meaning
        for derivation, value in (
            (our.MEAN, measurement.mean),
            (our.STANDARD_DEVIATION, measurement.sd),
            (our.MINIMUM, measurement.minimum),
            (our.MAXIMUM, measurement.maximum),
        ):
            values.append(tid.Measurement(name, round(value, 2), unit, derivation=derivation))
    return values


def _quality(measurement: Measurement, cut_off: frozenset[int]) -> list[tid.QualitativeEvaluation]:
    low, high = measurement.label.plausible_ml
    found = []
    if not low <= measurement.volume_ml <= high:
        found.append(tid.QualitativeEvaluation(our.QUALITY, our.VOLUME_IMPLAUSIBLE))
    if measurement.label.number in cut_off:
        found.append(tid.QualitativeEvaluation(our.QUALITY, our.COVERAGE_INCOMPLETE))
    return found


def _absent(label: Label, study: str, context: ResultContext) -> tid.MeasurementsAndQualitativeEvaluations:
    finding, sites = _place(label, context)
    return tid.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(label, study, context),
        finding_type=finding,
        finding_sites=sites,
        algorithm_id=_algorithm(context),
        qualitative_evaluations=[tid.QualitativeEvaluation(our.PRESENCE, our.ABSENT)],
    )


def _others_absent(labels: Sequence[Label], context: ResultContext) -> tid.ContainerContentItem:
    """Qualitative Evaluations (TID 1500 row 12): each of these structures is absent."""
    container = tid.ContainerContentItem(
        our.EVALUATIONS, relationship_type=tid.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = tid.ContentSequence()
    for label in labels:
        item = tid.CodeContentItem(our.PRESENCE, our.ABSENT, tid.RelationshipTypeValues.CONTAINS)
        item.ContentSequence = tid.ContentSequence(_place(label, context)[1])
        container.ContentSequence.append(item)
    return container
