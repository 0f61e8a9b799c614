"""The training recipe: one TOML file says everything that makes the weights."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import RecipeInvalid
from models.manifest import Input, Window
from models.networks.catalogue import NetworkSpec
from models.toml import checked, read_toml


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RealVolume(_Part):
    """A real CT below the data folder.

    `labels`: "classical" makes them by rule, "none" says that there is no lung in it. `use`: "train", or
    "test" to keep it out. `weight` is how often it is drawn, where one phantom counts 1.
    """

    path: str
    series: str = ""
    labels: Literal["classical", "none"]
    cropped: bool = False
    """The volume cuts through the chest wall, so the body cannot be told from its surroundings."""
    pure_hu: float = -962.0
    """The classical rule's upper limit of pure air, averaged; look at trachea and lungs to choose it."""
    use: Literal["train", "test"] = "train"
    weight: float = Field(default=10.0, gt=0.0)


class Data(_Part):
    """What is learnt from, and what is kept out."""

    phantoms: int = Field(ge=0)
    test_phantoms: int = Field(default=20, ge=0)
    real: tuple[RealVolume, ...] = ()


class Augmentation(_Part):
    """Limits of the random changes; intensities are shares of the normalised range."""

    rotation_deg: float = Field(default=12.0, ge=0.0, le=15.0)
    scale: float = Field(default=0.15, ge=0.0, le=0.4)
    shift: float = Field(default=0.15, ge=0.0, le=0.5)
    """Of the patch's size."""
    mirror: float = Field(default=0.3, ge=0.0, le=1.0)
    """Probability of a mirror image, in which left and right lung change their labels."""
    gain: float = 0.06
    offset: float = 0.03
    noise: float = 0.04
    density: float = 0.15
    """Random density of the lungs, and of patches in them."""
    darkest: float = Field(default=0.3, ge=0.0)
    """How much of `density` may be taken away instead of added."""
    thicken: float = Field(default=0.3, ge=0.0, le=1.0)
    """Probability of averaging neighbouring slices or pixels, as thick slices and soft kernels do."""


class Schedule(_Part):
    """AdamW with a short rise and a cosine fall of the learning rate."""

    steps: int = Field(ge=1)
    patches: tuple[tuple[int, int, int], ...] = ((96, 128, 128), (64, 96, 96))
    """Patch sizes in voxels, taken in turn."""
    voxels_per_step: int = 96 * 128 * 128
    """The batch is as large as fits."""
    learning_rate: float = Field(default=2e-3, gt=0.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    freeze_norm_after: float = Field(default=0.7, ge=0.0, le=1.0)
    """From this share of the steps on, batch norm keeps its statistics, as at inference."""
    bf16: bool = True
    threads: int = Field(default=2, ge=1)


class Network(_Part):
    """See models.networks.catalogue.NetworkSpec."""

    kind: Literal["residual_unet"] = "residual_unet"
    channels: Annotated[tuple[int, ...], Field(min_length=2)]
    residual_units: int = Field(default=2, ge=1)
    norm: Literal["batch", "instance"] = "batch"

    def spec(self, classes: int) -> NetworkSpec:
        """The network's specification for that many classes, background included."""
        return NetworkSpec(self.kind, 1, classes, self.channels, self.residual_units, self.norm)


class Recipe(_Part):
    """A checked recipe and the digest of its bytes."""

    name: str
    seed: int = 0
    input: Input
    window: Window
    network: Network
    data: Data
    augmentation: Augmentation = Augmentation()
    schedule: Schedule
    digest: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        multiple = self.network.spec(3).multiple
        for size in (self.window.size, *self.schedule.patches):
            if any(n % multiple for n in size):
                raise ValueError(f"{size} is not a multiple of {multiple} along each axis")
        if not self.data.phantoms and not any(volume.use == "train" for volume in self.data.real):
            raise ValueError("there is nothing to train on")
        return self


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe; raises RecipeInvalid, naming each wrong key."""
    data, digest = read_toml(path, RecipeInvalid)
    return checked(Recipe, data | {"digest": digest}, path, RecipeInvalid)
