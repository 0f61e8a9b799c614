"""The pipeline on files, without a network: what `segnode segment` does."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node.content import content_digest, data_set_digest
from dicom_node.reading import SourceSeries, find_series, parse_header, read_series, slice_header, summarise
from dicom_node.slices import text
from models.labels import Measurement
from models.nifti import save_nifti
from models.picture import overlay_picture
from models.registry import ModelPackage
from worker.engines.base import Engine
from worker.errors import NoModelAccepts
from worker.pipeline import SOFTWARE_VERSION, Order, Segmentation, Stopwatch, segment, summary_of
from worker.routing import route


@dataclass(frozen=True)
class Candidate:
    """A series of a folder that the model takes."""

    series_instance_uid: str
    files: tuple[Path, ...]


def candidates(
    folder: Path, package: ModelPackage, skipped: Callable[[str, str], None]
) -> tuple[Candidate, ...]:
    """The series below `folder` that the model takes; `skipped` hears of every other series or file and why.

    Raises NoModelAccepts where there is none.
    """
    found = find_series(folder, lambda path, reason: skipped(path.name, reason))
    taken = []
    for uid, files in found.items():
        datasets = [parse_header(path) for path in files]
        headers = [slice_header(dataset) for dataset in datasets]
        summary = summarise(headers, text(datasets[0], "StudyInstanceUID"), uid)
        routing = route(summary, [package])
        if routing.accepted:
            taken.append(Candidate(uid, tuple(files)))
        else:
            skipped(f"series {uid}", routing.reason)
    if not taken:
        raise NoModelAccepts(
            f"None of the {len(found)} series in {folder} is accepted by {package.manifest.model.name}."
        )
    return tuple(taken)


def segment_files(
    candidate: Candidate, package: ModelPackage, engine: Engine, output: Path
) -> dict[str, Any]:
    """Segments one series; writes seg.dcm (where something was found), sr.dcm, overlay.png, labels.nii.gz and
    result.json into `output`, and returns what result.json says.

    The objects carry the time of the newest source file, so that the same files give the same bytes again.
    """
    output.mkdir(parents=True, exist_ok=True)
    step = Stopwatch()
    with step("read"):
        source = read_series(candidate.files)
        content = content_digest(
            (text(parse_header(path), "SOPInstanceUID"), data_set_digest(path)) for path in candidate.files
        )
    newest = max(path.stat().st_mtime for path in candidate.files)
    order = Order(package, engine, content, datetime.fromtimestamp(int(newest), UTC), output)
    result = segment(source, order, step)
    with step("picture and NIfTI"):
        title = [f"{package.manifest.model.title} {package.manifest.model.version}", *_lines(result)]
        overlay_picture(source.volume, result.label_map, title, result.measurements).save(
            output / "overlay.png"
        )
        save_nifti(result.label_map, output / "labels.nii.gz")
    report = _report(source, order, result, step)
    (output / "result.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def _lines(result: Segmentation) -> list[str]:
    return [f"{item.label.name}: {item.volume_ml:.0f} mL" for item in result.measurements if item.voxels]


def _report(source: SourceSeries, order: Order, result: Segmentation, step: Stopwatch) -> dict[str, Any]:
    geometry, manifest, engine = source.volume.geometry, order.package.manifest, order.engine
    return {
        "study_instance_uid": source.summary.study_instance_uid,
        "series_instance_uid": source.summary.series_instance_uid,
        "content_digest": order.content_digest,
        "geometry": {
            "shape": geometry.shape,
            "spacing_mm": [round(value, 6) for value in geometry.spacing],
            "affine_lps": [[round(value, 6) for value in row] for row in geometry.affine.tolist()],
            "order": "slice, row, column",
        },
        "left_out": [{"sop_instance_uid": uid, "reason": reason} for uid, reason in source.left_out],
        "model": {
            "name": manifest.model.name,
            "version": manifest.model.version,
            "digest": manifest.digest,
        },
        "engine": {"kind": engine.kind, "version": engine.version, "precision": engine.precision},
        "software_version": SOFTWARE_VERSION,
        "summary": summary_of(result.measurements),
        "segments": [_segment(item) for item in result.measurements if item.voxels],
        "absent": [item.label.name for item in result.measurements if not item.voxels],
        "objects": [
            {
                "kind": item.kind, "file": item.path.name, "size": item.size,
                "sop_instance_uid": item.sop_instance_uid, "series_instance_uid": item.series_instance_uid,
            }
            for item in result.objects
        ],
        "seconds": {name: round(value, 4) for name, value in step.seconds.items()},
    }  # fmt: skip


def _segment(item: Measurement) -> dict[str, Any]:
    return {
        "number": item.label.number,
        "name": item.label.name,
        "type": asdict(item.label.type),
        "modifier": asdict(item.label.modifier) if item.label.modifier else None,
        "voxels": item.voxels,
        "volume_ml": round(item.volume_ml, 3),
        "centroid_lps_mm": [round(value, 3) for value in item.centroid_lps],
        "mean": round(item.mean, 2),
        "sd": round(item.sd, 2),
        "minimum": item.minimum,
        "maximum": item.maximum,
        "unit": item.unit,
    }
