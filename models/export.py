"""torch to ONNX, with proof that the engines give the same answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ExtraMissing, ModelsError
from models.networks.catalogue import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

INPUT, OUTPUT = "image", "scores"
_AXES = ("slices", "rows", "columns")
_OPSET = 18


@dataclass(frozen=True)
class Parity:
    """How an engine compares with torch on random volumes of several shapes and batches.

    `largest_difference` of the logits, and the share of voxels with the same winning class.
    """

    engine: str
    largest_difference: float
    same_labels: float


def export_onnx(network: "nn.Module", spec: NetworkSpec, path: Path) -> None:
    """Writes `path`: input `image` (n, c, slices, rows, columns) float32, output `scores` (n, classes, ...).

    Batch and spatial axes are dynamic; weights are inside the file. Raises ExtraMissing without torch or
    onnx.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise ExtraMissing(
            "Exporting needs torch and onnx.", remedy="pip install 'segnode[train]'"
        ) from error
    side = spec.multiple
    dynamic = {0: "n"} | {2 + n: name for n, name in enumerate(_AXES)}
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, spec.inputs, 2 * side, 3 * side, 4 * side),),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: dynamic, OUTPUT: dynamic},
        opset_version=_OPSET,
        dynamo=False,
    )
    onnx.checker.check_model(str(path), full_check=True)


def check_parity(network: "nn.Module", spec: NetworkSpec, path: Path, seed: int = 0) -> tuple[Parity, ...]:
    """Compares the file in ONNX Runtime and OpenVINO (fp32) with the network in torch.

    Two shapes and two batches. Raises ModelsError when the winning class agrees in less than 99.9 % of the
    voxels.
    """
    import torch

    rng = np.random.default_rng(seed)
    side = spec.multiple
    shapes = ((1, spec.inputs, 4 * side, 5 * side, 6 * side), (2, spec.inputs, 3 * side, 2 * side, 4 * side))
    images = [_smooth(rng.random(shape, dtype=np.float32)) for shape in shapes]
    with torch.inference_mode():
        expected = [network.eval()(torch.from_numpy(image)).numpy() for image in images]
    results = []
    for name, answers in (("onnxruntime", _onnxruntime(path, images)), ("openvino", _openvino(path, images))):
        pairs = list(zip(expected, answers, strict=True))
        same = [np.mean(a.argmax(1) == b.argmax(1)) for a, b in pairs]
        results.append(Parity(name, max(float(np.abs(a - b).max()) for a, b in pairs), float(min(same))))
        if results[-1].same_labels < 0.999:
            raise ModelsError(f"{name} and torch agree in only {results[-1].same_labels:.2%} of the voxels.")
    return tuple(results)


def _smooth(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise with structure of a few voxels, so that no voxel sits on the edge between classes by chance."""
    from scipy import ndimage

    smooth: NDArray[np.float32] = ndimage.gaussian_filter(image, (0, 0, 3, 3, 3))
    smooth -= smooth.min()
    smooth /= smooth.max()
    return smooth


def _onnxruntime(path: Path, images: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [session.run([OUTPUT], {INPUT: image})[0] for image in images]


def _openvino(path: Path, images: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    import openvino

    model: Any = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(model([image])[0]) for image in images]
