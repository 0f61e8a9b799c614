"""What a trained network is worth: unseen phantoms and real volumes, as they are and changed.

Everything runs through the preparation, windows and clean-up that serve.
"""

import argparse
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.cleanup import clean_scores
from models.labels import LabelMap
from models.manifest import Input, LabelEntry, Window
from models.metrics import Agreement, agreement
from models.phantom import thorax_phantom
from models.preparation import prepare, restore
from models.training.cases import random_spec, real_labels
from models.training.loop import load
from models.training.recipe import Recipe, read_recipe
from models.training.sources import read_volume
from models.volume import Geometry, Volume
from models.windows import infer_windows, plan_windows


@dataclass(frozen=True, eq=False)
class TorchScorer:
    """A torch network where an engine is expected."""

    network: nn.Module

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (n, channels, slices, rows, columns) to scores (n, classes, ...)."""
        with torch.inference_mode():
            scores: NDArray[np.float32] = self.network(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        return scores


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Network and everything around it, as a package would run them."""

    network: nn.Module
    input: Input
    window: Window
    labels: Sequence[LabelEntry]

    def segment(self, volume: Volume) -> LabelMap:
        """The label map on the volume's grid."""
        prepared = prepare([volume], self.input)
        plan = plan_windows(prepared.geometry.shape, self.window)
        scores = infer_windows(prepared, plan, TorchScorer(self.network))
        cleaned = clean_scores(scores, self.labels, prepared.geometry.voxel_ml)
        return restore(cleaned, prepared, [entry.to_label() for entry in self.labels])


@dataclass(frozen=True)
class Result:
    """One volume: agreement of each label."""

    name: str
    labels: tuple[Agreement, ...]

    @property
    def worst_dice(self) -> float:
        """Of the labels that the reference has."""
        return min((entry.dice for entry in self.labels if entry.reference_ml > 0.0), default=1.0)

    @property
    def false_ml(self) -> float:
        """Volume found of labels that the reference does not have."""
        return sum(entry.found_ml for entry in self.labels if entry.reference_ml == 0.0)

    def plain(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def compare(
    segmenter: Segmenter, name: str, volume: Volume, reference: NDArray[Any], least_ml: float = 0.0
) -> Result:
    """Segments and compares; labels of less than `least_ml` in the reference are not asked for."""
    found = segmenter.segment(volume).array
    voxel = volume.geometry.voxel_ml
    entries = (agreement(found, reference, label.number, voxel) for label in segmenter.labels)
    return Result(name, tuple(e for e in entries if e.reference_ml == 0.0 or e.reference_ml >= least_ml))


def on_phantoms(segmenter: Segmenter, count: int, seed: int, least_ml: float = 50.0) -> list[Result]:
    """Phantoms that training has not seen, when `seed` is another; every sixth has no lung."""
    results = []
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        phantom = thorax_phantom(random_spec(rng, without_lung=n % 6 == 5))
        results.append(compare(segmenter, f"phantom-{n}", phantom.volume, phantom.labels, least_ml))
    return results


def on_real(segmenter: Segmenter, recipe: Recipe, folder: Path) -> list[Result]:
    """The recipe's real volumes, those with lung also in the ways they could have come in."""
    results = []
    for entry in recipe.data.real:
        volume = read_volume(folder / entry.path, entry.series)
        labels = real_labels(volume, entry)
        name = f"{entry.path} ({entry.use})"
        results.append(compare(segmenter, name, volume, labels))
        if labels.any():
            for change, other, marks in variants(volume, labels):
                results.append(compare(segmenter, f"{name}, {change}", other, marks, 50.0))
    return results


def variants(volume: Volume, labels: NDArray[np.uint8]) -> list[tuple[str, Volume, NDArray[np.uint8]]]:
    """The same patient otherwise scanned: (what was changed, volume, labels)."""
    rng = np.random.default_rng(5)
    noisy = volume.array + rng.normal(0.0, 60.0, volume.array.shape)
    n = volume.array.shape[0]
    return [
        ("slices and columns reversed", *_part(volume, labels, (slice(None, None, -1), slice(None), -1))),
        ("rows and columns reversed", *_part(volume, labels, (slice(None), slice(None, None, -1), -1))),
        ("every second slice", *_part(volume, labels, (slice(None, None, 2), slice(None), 1))),
        ("lower half", *_part(volume, labels, (slice(0, n // 2), slice(None), 1))),
        ("upper half", *_part(volume, labels, (slice(n // 2, n), slice(None), 1))),
        ("noise of 60 HU", Volume(noisy.astype(np.int16), volume.geometry), labels),
    ]


def _part(
    volume: Volume, labels: NDArray[np.uint8], cut: tuple[slice, slice, int]
) -> tuple[Volume, NDArray[np.uint8]]:
    """Slices and rows by index, columns forwards or backwards; every voxel stays where it is."""
    cuts = (cut[0], cut[1], slice(None, None, cut[2]))
    first, step = np.zeros(3), np.ones(3)
    for axis, one in enumerate(cuts):
        start, _, stride = one.indices(volume.array.shape[axis])
        first[axis], step[axis] = start, stride
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.to_patient(first)
    affine[:3, :3] = affine[:3, :3] * step
    array = np.ascontiguousarray(volume.array[cuts])
    return Volume(array, Geometry(array.shape, affine)), np.ascontiguousarray(labels[cuts])


def main() -> None:
    """The command: prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m models.training.evaluate", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--labels", type=Path, required=True, help="a model.toml that lists the labels")
    parser.add_argument("--data", type=Path, required=True, help="folder with the real volumes")
    parser.add_argument("--output", type=Path, required=True, help="JSON file with every figure")
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    labels = [LabelEntry(**entry) for entry in tomllib.loads(arguments.labels.read_text())["labels"]]
    segmenter = Segmenter(load(arguments.checkpoint).network, recipe.input, recipe.window, labels)
    results = on_phantoms(segmenter, recipe.data.test_phantoms, recipe.seed + 1)
    results += on_real(segmenter, recipe, arguments.data)
    for result in results:
        dice = " ".join(f"{entry.dice:.3f} ({entry.found_ml:.0f} mL)" for entry in result.labels)
        print(f"{result.name}: Dice {dice}; where there is none {result.false_ml:.1f} mL")  # noqa: T201
    arguments.output.write_text(json.dumps([result.plain() for result in results], indent=1))


if __name__ == "__main__":
    main()
