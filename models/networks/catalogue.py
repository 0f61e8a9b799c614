"""The networks that can be built by name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.errors import ExtraMissing

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkSpec:
    """A network: `channels` per level, each level but the first at half the resolution of the one before.

    `classes` counts the background. Takes (n, inputs, slices, rows, columns), gives logits (n, classes, ...)
    of the same size; each axis must be a multiple of `multiple`.
    """

    kind: Literal["residual_unet"] = "residual_unet"
    inputs: int = 1
    classes: int = 3
    channels: tuple[int, ...] = (16, 32, 64, 96, 128)
    residual_units: int = 2
    norm: Literal["batch", "instance"] = "batch"

    @property
    def multiple(self) -> int:
        """Every axis of the input must be a multiple of this."""
        return int(2 ** (len(self.channels) - 1))


def build(spec: NetworkSpec) -> "nn.Module":
    """The network, freshly initialised; raises ExtraMissing without torch and MONAI."""
    try:
        from monai.networks.nets.unet import UNet
    except ImportError as error:
        raise ExtraMissing("Networks need torch and MONAI.", remedy="pip install 'segnode[train]'") from error
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=spec.inputs,
        out_channels=spec.classes,
        channels=spec.channels,
        strides=[2] * (len(spec.channels) - 1),
        num_res_units=spec.residual_units,
        norm=spec.norm,
        act="RELU",
    )
    return network
