"""The training loop: Dice and cross entropy, AdamW, cosine, one checkpoint."""

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor, nn

from models.errors import RecipeInvalid
from models.networks.catalogue import NetworkSpec, build
from models.training.augment import draw
from models.training.cases import Case
from models.training.recipe import Recipe, Schedule

log = logging.getLogger(__name__)
CHECKPOINT, CURVE = "checkpoint.pt", "curve.jsonl"


@dataclass(frozen=True, eq=False)
class Trained:
    """The network in evaluation mode and the mean loss of the last hundred steps."""

    network: nn.Module
    spec: NetworkSpec
    loss: float


def train(
    recipe: Recipe, cases: Sequence[Case], output: Path, classes: int = 3, start: Path | None = None
) -> Trained:
    """Trains; writes `checkpoint.pt` (weights only) and `curve.jsonl` to `output`.

    `start` is a checkpoint of the same network to begin with. The same recipe, cases and start give the same
    weights on the same kind of processor. Raises RecipeInvalid when the checkpoint holds another network.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.schedule.threads)
    spec = recipe.network.spec(classes)
    network = build(spec)
    if start is not None:
        earlier = load(start)
        if earlier.spec != spec:
            raise RecipeInvalid(f"The network in {start} is not the recipe's.")
        network = earlier.network
    schedule = recipe.schedule
    optimiser = torch.optim.AdamW(
        network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule))
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    losses: list[float] = []
    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with (output / CURVE).open("w") as curve:
        for step in range(schedule.steps):
            network.train()
            if step >= schedule.freeze_norm_after * schedule.steps:
                _freeze_norm(network)
            image, labels = batch(recipe, cases, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bf16):
                scores = network(image)
            loss = criterion(scores.float(), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            rate.step()
            losses.append(float(loss.detach()))
            if step % 20 == 19:
                line = {"step": step + 1, "loss": round(float(np.mean(losses[-20:])), 4)}
                curve.write(json.dumps(line | {"seconds": round(time.perf_counter() - started)}) + "\n")
                curve.flush()
                log.info("step %d of %d, loss %.4f", step + 1, schedule.steps, line["loss"])
            if step % 250 == 249:
                save(output / CHECKPOINT, network, spec)
    save(output / CHECKPOINT, network, spec)
    return Trained(network.eval(), spec, float(np.mean(losses[-100:])))


def batch(recipe: Recipe, cases: Sequence[Case], step: int) -> tuple[Tensor, Tensor]:
    """Images and labels (n, 1, slices, rows, columns) of that step; depends on nothing but the recipe."""
    rng = np.random.default_rng([recipe.seed, 7, step])
    schedule = recipe.schedule
    size = schedule.patches[step % len(schedule.patches)]
    count = max(1, schedule.voxels_per_step // math.prod(size))
    weights = np.array([case.weight for case in cases])
    chosen = rng.choice(len(cases), count, p=weights / weights.sum())
    patches = [draw(cases[n], size, recipe.augmentation, rng) for n in chosen]
    return torch.stack([p.image for p in patches]), torch.stack([p.labels for p in patches])


def save(path: Path, network: nn.Module, spec: NetworkSpec) -> None:
    """Writes weights and specification, atomically."""
    partial = path.with_suffix(".part")
    torch.save({"spec": asdict(spec), "weights": network.state_dict()}, partial)
    partial.replace(path)


def load(path: Path) -> Trained:
    """Reads a checkpoint without unpickling anything but tensors and plain values."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RecipeInvalid(f"There is no checkpoint at {path}.") from error
    spec = NetworkSpec(**stored["spec"] | {"channels": tuple(stored["spec"]["channels"])})
    network = build(spec)
    network.load_state_dict(stored["weights"])
    return Trained(network.eval(), spec, math.nan)


def _rate(step: int, schedule: Schedule) -> float:
    rise = min(50, max(schedule.steps // 10, 1))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(schedule.steps - rise, 1)))


def _freeze_norm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()
