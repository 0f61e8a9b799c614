"""The manifest of a model package, `model.toml`: what the model is for, what it accepts and how it runs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import ManifestInvalid
from models.labels import Code, Label
from models.toml import checked, read_toml


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Part):
    """Who the model is and what it may be used for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    purpose: str
    not_for: str
    code_licence: str
    weights_licence: str
    anatomy: tuple[str, str, str]
    """SNOMED CT code of the region examined: (value, "SCT", meaning)."""


class Accepts(_Part):
    """Which series the model takes; a series that misses one of these is skipped with that reason."""

    modalities: tuple[str, ...] = ("CT",)
    min_slices: int = 10
    min_coverage_mm: float = 0.0
    """Least extent along the slice normal, in mm."""
    max_slice_spacing_mm: float = 10.0
    body_parts: tuple[str, ...] = ()
    """Accepted Body Part Examined values (0018,0015), upper case; a series without one is not refused."""
    exclude_image_types: tuple[str, ...] = ("LOCALIZER", "SECONDARY", "MIP", "MPR")


class Input(_Part):
    """The preparation: everything between the source grid and the network's input."""

    spacing_mm: tuple[float, float, float]
    """Along (slices, rows, columns) of the canonical orientation."""
    clip: tuple[float, float]
    """Lowest and highest value kept, in the volume's unit."""
    normalise: Literal["range", "zscore"] = "range"
    """"range": clip maps to [0, 1]; "zscore": (v - mean) / sd with `mean` and `sd` of the training data."""
    mean: float = 0.0
    sd: float = 1.0


class Window(_Part):
    """The sliding window, in voxels of the prepared volume (slices, rows, columns)."""

    size: tuple[int, int, int]
    overlap: float = Field(default=0.25, ge=0.0, lt=1.0)


class EngineChoice(_Part):
    """The network file and the engines allowed to run it, in order of preference."""

    file: str = "model.onnx"
    allowed: tuple[Literal["openvino", "onnxruntime", "tensorrt"], ...] = ("openvino", "onnxruntime")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class LabelEntry(_Part):
    """One segment; see models.labels.Label."""

    number: int = Field(ge=1)
    name: str
    category: tuple[str, str, str]
    type: tuple[str, str, str]
    modifier: tuple[str, str, str] | None = None
    colour: tuple[int, int, int]
    plausible_ml: tuple[float, float]
    keep_largest: int = 0
    """How many connected components to keep, largest first; 0 keeps all."""
    min_ml: float = 0.0
    """Components below this volume are removed; a label left with none is absent."""

    def to_label(self) -> Label:
        """The label as the pipeline uses it."""
        return Label(
            self.number, self.name, Code(*self.category), Code(*self.type),
            Code(*self.modifier) if self.modifier else None, self.colour, self.plausible_ml,
        )  # fmt: skip


class Acceptance(_Part):
    """The case that must pass on a machine before the package goes live there."""

    volume: str
    """NIfTI file of the package, HU."""
    reference: str
    """NIfTI file of the package, label numbers."""
    min_dice: float = 0.9


class Provenance(_Part):
    """Where the weights come from."""

    trained_on: str
    labels: str
    recipe: str
    date: str


class ModelManifest(_Part):
    """A validated `model.toml` together with the digest of its bytes."""

    schema_version: Literal[1] = 1
    model: Identity
    accepts: Accepts = Accepts()
    input: Input
    window: Window
    engine: EngineChoice = EngineChoice()
    labels: Annotated[tuple[LabelEntry, ...], Field(min_length=1)]
    acceptance: Acceptance
    provenance: Provenance
    files: dict[str, str]
    """SHA-256 of every file of the package but the manifest itself."""
    digest: str = ""
    """SHA-256 of `model.toml`; as that names the digest of each file, it identifies the whole package."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelManifest":
        numbers = [entry.number for entry in self.labels]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"labels must be numbered 1, 2, 3 ... in order, not {numbers}")
        kinds = [(entry.type, entry.modifier) for entry in self.labels]
        if len(set(kinds)) != len(kinds):
            raise ValueError("two labels have the same type and modifier")
        for name in (self.engine.file, self.acceptance.volume, self.acceptance.reference):
            if name not in self.files:
                raise ValueError(f"{name} is used but has no digest in [files]")
        for name in self.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name} lies outside the package")
        return self

    @property
    def segment_labels(self) -> tuple[Label, ...]:
        """The labels in order of their numbers."""
        return tuple(entry.to_label() for entry in self.labels)


def read_manifest(path: Path) -> ModelManifest:
    """Reads and checks `model.toml`; raises ManifestInvalid, naming each wrong key."""
    data, digest = read_toml(path, ManifestInvalid)
    return checked(ModelManifest, data | {"digest": digest}, path, ManifestInvalid)
