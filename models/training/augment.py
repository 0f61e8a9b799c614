"""Random changes that keep the anatomy possible; made as the patch is cut out."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.phantom import LEFT_LUNG, RIGHT_LUNG
from models.training.cases import Case
from models.training.recipe import Augmentation


@dataclass(frozen=True, eq=False)
class Patch:
    """`image` (1, slices, rows, columns) float32 and `labels` of the same shape, int64."""

    image: Tensor
    labels: Tensor


def draw(case: Case, size: tuple[int, int, int], rules: Augmentation, rng: np.random.Generator) -> Patch:
    """One patch of `size` around a random place of the case, turned, scaled, mirrored and changed."""
    mirrored = rng.random() < rules.mirror
    theta = _placement(case.labels.shape, size, rules, rng, mirrored)
    grid = functional.affine_grid(theta[None], [1, 1, *size], align_corners=False)
    image = torch.from_numpy(case.image.astype(np.float32))[None, None]
    labels = torch.from_numpy(case.labels.astype(np.float32))[None, None]
    image = functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    marks = functional.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    found = marks[0].long()
    if mirrored:
        found = torch.tensor([0, RIGHT_LUNG, LEFT_LUNG])[found]
    return Patch(_changed(image, found, rules, rng), found)


def _placement(
    shape: tuple[int, ...],
    size: tuple[int, int, int],
    rules: Augmentation,
    rng: np.random.Generator,
    mirrored: bool,
) -> Tensor:
    """The affine (3, 4) from patch to case, both in torch's -1..1 coordinates (x, y, z)."""
    turn = np.deg2rad(rng.uniform(-rules.rotation_deg, rules.rotation_deg, 3) * (0.4, 0.4, 1.0))
    matrix = np.eye(3)
    for axis, angle in enumerate(turn):
        a, b = [n for n in range(3) if n != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    matrix = matrix * rng.uniform(1 - rules.scale, 1 + rules.scale) * rng.uniform(0.95, 1.05, 3)
    if mirrored:
        matrix[:, 0] *= -1.0
    patch, case = np.array(size[::-1], float), np.array(shape[::-1], float)
    room = np.maximum(case - patch, 0.0) / 2 + rules.shift * patch * (0.6, 0.6, 1.0)
    centre = rng.uniform(-room, room)
    theta = np.concatenate([matrix * patch[None, :], 2.0 * centre[:, None]], axis=1) / case[:, None]
    return torch.from_numpy(theta.astype(np.float32))


def _changed(image: Tensor, labels: Tensor, rules: Augmentation, rng: np.random.Generator) -> Tensor:
    """Density of the lungs, gain, offset, thickness and noise; values stay in 0..1."""
    noise = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    if rng.random() < 0.6:
        coarse = torch.rand((1, 1, 5, 6, 6), generator=noise) * float(rng.uniform(-rules.darkest, 1.0))
        field = functional.interpolate(coarse, image.shape[1:], mode="trilinear")[0]
        dense = float(rng.uniform(-rules.darkest, 0.6)) + field
        gas = (image < 0.4).float()
        image = image + (labels > 0) * gas * dense * rules.density
    image = image * float(rng.uniform(1 - rules.gain, 1 + rules.gain))
    image = image + float(rng.uniform(-rules.offset, rules.offset))
    if rng.random() < rules.thicken:
        width = [1, 1, 1]
        width[int(rng.integers(3))] = 3
        half = [n // 2 for n in width]
        image = functional.avg_pool3d(image[None], width, 1, half, count_include_pad=False)[0]
    if rng.random() < 0.6:
        image = image + torch.randn(image.shape, generator=noise) * float(rng.uniform(0.0, rules.noise))
    return image.clamp(0.0, 1.0)
