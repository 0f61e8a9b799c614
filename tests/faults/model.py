"""A model package small enough to segment in a blink, so that faults and not inference fill the time."""

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

_MANIFEST = """
[model]
name = "thin"
version = "1.0.0"
title = "Air by a threshold"
purpose = "fault tests"
not_for = "anything else"
code_licence = "Apache-2.0"
weights_licence = "Apache-2.0"
anatomy = ["51185008", "SCT", "Chest"]
[input]
spacing_mm = [6.0, 6.0, 6.0]
clip = [-1000, 600]
[window]
size = [16, 64, 64]
[acceptance]
volume = "case"
reference = "case"
[provenance]
trained_on = "nothing"
labels = "none"
recipe = "none"
date = "2026-01-01"
[[labels]]
number = 1
name = "Air"
category = ["91723000", "SCT", "Anatomical structure"]
type = ["39607008", "SCT", "Lung"]
colour = [90, 160, 220]
plausible_ml = [1, 60000]
[[labels]]
number = 2
name = "Bone"
category = ["91723000", "SCT", "Anatomical structure"]
type = ["272673000", "SCT", "Bone structure"]
colour = [240, 230, 200]
plausible_ml = [1, 60000]
"""


def write_thin_model(library: Path) -> str:
    """Writes the package into a folder of `library`; its name.

    What lies below -520 HU it calls air, what lies above 200 HU bone.
    """
    folder = library / "thin"
    folder.mkdir(parents=True)
    weights = np.array([0.0, -1.0, 1.0], np.float32).reshape(3, 1, 1, 1, 1)
    bias = np.array([0.0, 0.3, -0.75], np.float32)  # of the range -1000 to 600 HU
    grid = ["slices", "rows", "columns"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights", "bias"], ["scores"])],
        "thin",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, *grid])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, *grid])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    (folder / "case").write_bytes(b"none")
    digests = "\n".join(
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"'
        for name in ("model.onnx", "case")
    )
    (folder / "model.toml").write_text(f"{_MANIFEST}[files]\n{digests}\n")
    return "thin"
