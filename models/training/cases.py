"""Training cases: phantoms drawn at random and real volumes, both through the preparation that serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.anatomy import Body
from models.labels import LabelMap
from models.manifest import Input
from models.phantom import PhantomSpec, thorax_phantom
from models.preparation import prepare, prepare_labels
from models.training.classical import Rule, classical_lungs
from models.training.recipe import RealVolume
from models.training.sources import read_volume
from models.volume import Volume


@dataclass(frozen=True, eq=False)
class Case:
    """A prepared volume: `image` float16 and `labels` uint8, both (slices, rows, columns)."""

    name: str
    image: NDArray[np.float16]
    labels: NDArray[np.uint8]
    weight: float = 1.0


def prepared_case(name: str, volume: Volume, labels: NDArray[np.uint8], spec: Input) -> Case:
    """The case as the network will see it."""
    image = prepare([volume], spec).array[0]
    return Case(name, image.astype(np.float16), prepare_labels(LabelMap(labels, volume.geometry, ()), spec))


def random_spec(rng: np.random.Generator, without_lung: bool = False) -> PhantomSpec:
    """A patient and a protocol: coverage, field of view, thickness, kernel, noise, position, arms, couch.

    Without lung it is the abdomen, the head, or the thighs, some of these in a field of view for one limb.
    """
    contrast = float(rng.uniform(80.0, 380.0)) if rng.random() < 0.5 else 0.0
    body = Body(
        seed=int(rng.integers(1 << 31)),
        size=float(rng.uniform(0.72, 1.2)),
        fat_mm=float(rng.uniform(3.0, 42.0)),
        breath=float(rng.uniform(0.7, 1.15)),
        contrast_hu=contrast,
        lesions=int(rng.integers(0, 6)),
        effusion_mm=float(rng.uniform(10.0, 60.0)) if rng.random() < 0.15 else 0.0,
        arms="up" if rng.random() < 0.5 else "down",
        table=("curved", "flat", "none")[int(rng.choice(3, p=[0.5, 0.3, 0.2]))],
        table_tilt_deg=float(rng.uniform(-6.0, 6.0)) if rng.random() < 0.2 else 0.0,
    )
    if without_lung:
        centre, extent = (
            float(rng.choice([-640.0, -420.0, -330.0, 330.0, 380.0])),
            float(rng.uniform(60, 170)),
        )
    else:
        centre, extent = float(rng.normal(0.0, 70.0)), float(rng.uniform(80.0, 420.0))
    step = float(rng.choice([1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 8.0, 10.0]))
    view = float(rng.uniform(290.0, 500.0)) if rng.random() < 0.8 else float(rng.uniform(170.0, 290.0))
    aside = 0.0
    if centre == -640.0 and rng.random() < 0.6:
        view, aside = float(rng.uniform(130.0, 220.0)), float(rng.choice([-88.0, 88.0]))
    pixel = float(rng.uniform(1.6, 2.6))
    pixels = int(view / pixel)
    return PhantomSpec(
        shape=(max(int(extent / step), 6), pixels, pixels),
        spacing_mm=(step, pixel, pixel),
        thickness_mm=step * float(rng.choice([0.6, 1.0, 1.0, 1.4])),
        centre_mm=(aside + float(rng.normal(0.0, 12.0)), 10.0 + float(rng.normal(0.0, 15.0)), centre),
        body=body,
        position=("HFS", "FFS", "HFP", "FFP")[int(rng.choice(4, p=[0.55, 0.2, 0.15, 0.1]))],
        noise_hu=float(rng.uniform(3.0, 60.0)),
        kernel_mm=float(rng.uniform(0.0, 1.6)),
        fov_padding=(None, -1024, -2000, -3024)[int(rng.choice(4, p=[0.5, 0.2, 0.15, 0.15]))],
    )


def phantom_cases(count: int, seed: int, spec: Input) -> list[Case]:
    """`count` phantoms, every sixth without lung; the same seed gives the same ones."""
    cases = []
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        phantom = thorax_phantom(random_spec(rng, without_lung=n % 6 == 5))
        cases.append(prepared_case(f"phantom-{n}", phantom.volume, phantom.labels, spec))
    return cases


def real_labels(volume: Volume, entry: RealVolume) -> NDArray[np.uint8]:
    """Reference labels of a real volume as its recipe entry says."""
    if entry.labels == "none":
        return np.zeros(volume.array.shape, np.uint8)
    return classical_lungs(volume, Rule(pure_hu=entry.pure_hu, inside_body=not entry.cropped))


def real_cases(entries: Sequence[RealVolume], folder: Path, use: str, spec: Input) -> list[Case]:
    """The real volumes of that use, prepared."""
    cases = []
    for entry in entries:
        if entry.use == use:
            volume = read_volume(folder / entry.path, entry.series)
            case = prepared_case(entry.path, volume, real_labels(volume, entry), spec)
            cases.append(Case(case.name, case.image, case.labels, entry.weight))
    return cases
