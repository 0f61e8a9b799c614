"""Whether a model package works on this machine: its acceptance case, run for real."""

import time
from dataclasses import dataclass

from models.metrics import dice
from models.nifti import load_labels, load_volume
from models.registry import ModelPackage
from worker.engines.base import Engine
from worker.errors import AcceptanceFailed
from worker.pipeline import Stopwatch, find_labels


@dataclass(frozen=True)
class Accepted:
    """A passed acceptance case: Dice of each label by its name, and the seconds it took."""

    engine: str
    precision: str
    dice: dict[str, float]
    seconds: float


def run_acceptance(package: ModelPackage, engine: Engine) -> Accepted:
    """Segments the package's acceptance case on the open engine and compares with its reference.

    Raises AcceptanceFailed, naming the label that agrees least; EngineFailed; ModelsError for a case that
    cannot be read.
    """
    manifest = package.manifest
    start = time.perf_counter()
    volume = load_volume(package.path(manifest.acceptance.volume))
    reference = load_labels(package.path(manifest.acceptance.reference))
    found = find_labels(volume, package, engine, Stopwatch())
    agreements = {label.name: dice(found.array, reference, label.number) for label in manifest.segment_labels}
    worst = min(agreements, key=lambda name: agreements[name])
    if agreements[worst] < manifest.acceptance.min_dice:
        raise AcceptanceFailed(
            f"{package.name} on {engine.kind} ({engine.precision}) reaches a Dice of {agreements[worst]:.3f} "
            f"for {worst}; its acceptance case demands {manifest.acceptance.min_dice:.3f}.",
            remedy="Pin another engine in [worker] engine, or install the package again.",
            dice=agreements,
        )
    return Accepted(engine.kind, engine.precision, agreements, time.perf_counter() - start)
