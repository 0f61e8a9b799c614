"""Which models take a series, and why the others do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.records import SeriesSummary
from models.manifest import ModelManifest
from models.registry import ModelPackage


@dataclass(frozen=True)
class Routing:
    """The packages that take the series, and one sentence for each that does not."""

    accepted: tuple[ModelPackage, ...]
    refused: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All refusals in one line."""
        return "; ".join(self.refused) or "no model is enabled"


def route(summary: SeriesSummary, packages: Sequence[ModelPackage]) -> Routing:
    """Holds the series against each model's criteria."""
    refusals = [(package, _refusal(summary, package.manifest)) for package in packages]
    return Routing(
        tuple(package for package, refusal in refusals if not refusal),
        tuple(f"{package.manifest.model.name}: {refusal}" for package, refusal in refusals if refusal),
    )


def _refusal(summary: SeriesSummary, manifest: ModelManifest) -> str:
    """Why the model does not take the series; empty where it does."""
    wanted = manifest.accepts
    part = summary.header.body_part.upper()
    excluded = [kind for kind in summary.header.image_type if kind.upper() in wanted.exclude_image_types]
    spacing = summary.slice_spacing_mm
    refusals = {
        f"modality {summary.modality or 'unknown'} is not {' or '.join(wanted.modalities)}": (
            summary.modality not in wanted.modalities
        ),
        f"image type {' '.join(excluded)} is not accepted": bool(excluded),
        f"{summary.instances} slices are fewer than {wanted.min_slices}": (
            summary.instances < wanted.min_slices
        ),
        f"{summary.coverage_mm:.0f} mm are less than {wanted.min_coverage_mm:.0f} mm": (
            summary.coverage_mm < wanted.min_coverage_mm
        ),
        f"slices {spacing:.1f} mm apart, more than {wanted.max_slice_spacing_mm:.1f} mm": (
            spacing > wanted.max_slice_spacing_mm
        ),
        f"body part {part} is not accepted": bool(
            wanted.body_parts and part and part not in wanted.body_parts
        ),
    }
    return next((sentence for sentence, applies in refusals.items() if applies), "")
