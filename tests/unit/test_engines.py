"""Every engine against one contract, and against each other."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.manifest import ModelManifest
from models.registry import ModelPackage
from worker.engines.base import EngineSettings
from worker.engines.choose import open_engine
from worker.engines.fake import FakeEngine
from worker.engines.onnxruntime import OnnxRuntimeEngine
from worker.engines.openvino import OpenVinoEngine
from worker.errors import EngineFailed, EngineUnavailable

SIZE = (16, 24, 32)


def network(path: Path, *, broken_scores: bool = False, classes: int = 3) -> Path:
    """A small convolutional network with dynamic batch and shape; with `broken_scores` it gives NaN."""
    rng = np.random.default_rng(7)
    wide, out = (
        rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 1, 3, 3, 3), (classes, 8, 1, 1, 1))
    )
    nodes = [
        helper.make_node("Conv", ["image", "wide"], ["a"], pads=[1] * 6),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "out"], ["c"]),
        helper.make_node("Log" if broken_scores else "Identity", ["c"], ["scores"]),
    ]
    grid = ["slices", "rows", "columns"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, *grid])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, *grid])],
        [numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(out, "out")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def package(folder: Path, **engine: object) -> ModelPackage:
    """A package around folder/model.onnx."""
    code = ("39607008", "SCT", "Lung")
    kinds = (code, ("3341006", "SCT", "Right lung"))
    labels = [
        {"number": n, "name": f"part {n}", "category": code, "type": kinds[n - 1], "colour": (1, 2, 3),
         "plausible_ml": (0, 1)} for n in (1, 2)
    ]  # fmt: skip
    identity = dict.fromkeys(("title", "purpose", "not_for", "code_licence", "weights_licence"), "x")
    manifest = ModelManifest.model_validate(
        {
            "model": identity | {"name": "small", "version": "1.0.0", "anatomy": code},
            "input": {"spacing_mm": (3, 3, 3), "clip": (-1000, 600)},
            "window": {"size": SIZE},
            "engine": engine,
            "labels": labels,
            "acceptance": {"volume": "v", "reference": "r"},
            "provenance": dict.fromkeys(("trained_on", "labels", "recipe", "date"), "x"),
            "files": dict.fromkeys(("model.onnx", "v", "r"), hashlib.sha256(b"").hexdigest()),
        }
    )
    return ModelPackage(folder, manifest)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("model") / "model.onnx")


def windows(n: int = 2, size: tuple[int, ...] = SIZE) -> np.ndarray:
    return np.random.default_rng(3).random((n, 1, *size), dtype=np.float32)


ENGINES = {
    "fake": lambda path, **kw: FakeEngine(path, EngineSettings(**kw), classes=3),
    "openvino": lambda path, **kw: OpenVinoEngine(path, EngineSettings(**kw)),
    "onnxruntime": lambda path, **kw: OnnxRuntimeEngine(path, EngineSettings(**kw)),
}


@pytest.fixture(params=ENGINES)
def make(request):
    return ENGINES[request.param]


def test_every_engine_opens_warms_up_infers_and_closes(make, model):
    """SCOPE F8, F9: one contract: shapes, types, determinism, timings, names."""
    with make(model) as engine:
        engine.warm_up(SIZE)
        batch = windows()
        scores = engine.infer(batch)
        assert scores.shape == (2, 3, *SIZE)
        assert scores.dtype == np.float32
        assert np.array_equal(scores, engine.infer(batch))
        assert np.array_equal(scores[1:], engine.infer(batch[1:]))
        kept = scores.copy()
        engine.infer(windows() * 0.5)
        assert np.array_equal(scores, kept), "a later window must not write into earlier scores"
        assert set(engine.timings) == {"open", "warm_up", "infer"}
        assert min(engine.timings.values()) > 0
        assert engine.version
        assert engine.precision in {"fp32", "bf16"}
        assert engine.passed_over == ()
    engine.close()
    with pytest.raises(EngineFailed):
        engine.infer(batch)


def test_every_engine_takes_another_window_size(make, model):
    """SCOPE F6: dynamic axes: a size other than the one warmed up for, and inputs that are no plain array."""
    with make(model, threads=1) as engine:
        engine.warm_up(SIZE)
        strided = windows(1, (8, 16, 80))[..., ::5].astype(np.float64)
        assert engine.infer(strided).shape == (1, 3, 8, 16, 16)


def test_threads_may_share_an_engine(make, model):
    """SCOPE F1: two studies on one engine at a time get the scores each would get alone."""
    batches = [windows(1) * share for share in np.linspace(0.1, 1, 8, dtype=np.float32)]
    with make(model) as engine:
        expected = [engine.infer(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(engine.infer, batches * 3))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 3, strict=True))


def test_engines_agree(model):
    """SCOPE F8, F9: fp32 engines agree to rounding, bf16 to its precision."""
    batch = windows(1)
    with OnnxRuntimeEngine(model) as reference:
        expected = reference.infer(batch)
    with OpenVinoEngine(model, EngineSettings(precision="fp32")) as engine:
        assert np.allclose(engine.infer(batch), expected, atol=1e-4)
        assert engine.precision == "fp32"
    with OpenVinoEngine(model) as engine:
        found = engine.infer(batch)
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_scores_that_are_no_numbers_fail_by_name(tmp_path):
    """SCOPE F8, F9: NaN never becomes a label map."""
    path = network(tmp_path / "model.onnx", broken_scores=True)
    for engine in (OpenVinoEngine(path), OnnxRuntimeEngine(path)):
        with engine, pytest.raises(EngineFailed, match="not finite"):
            engine.infer(windows(1))


@pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxRuntimeEngine])
def test_windows_the_network_cannot_take_fail_by_name(kind, model):
    """SCOPE F8, F9: two channels for a network of one."""
    with kind(model) as engine, pytest.raises(EngineFailed, match="failed"):
        engine.infer(np.zeros((1, 2, *SIZE), np.float32))


@pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxRuntimeEngine])
@pytest.mark.parametrize("content", [None, b"", b"not a network", b"\x08\x08" * 4000])
def test_a_damaged_network_is_refused_by_name(kind, content, tmp_path):
    """SCOPE I7: a missing, empty or damaged file is EngineUnavailable, naming the file."""
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineUnavailable, match=r"model\.onnx"):
        kind(path).open()


def test_the_first_allowed_engine_is_chosen(model):
    """SCOPE F8, F9: the manifest's order decides; a pinned engine is the only one tried."""
    with open_engine(package(model.parent), threads=2) as engine:
        assert engine.kind == "openvino"
        assert engine.infer(windows(1)).shape == (1, 3, *SIZE)
    assert open_engine(package(model.parent), "onnxruntime").kind == "onnxruntime"
    assert open_engine(package(model.parent), "fake").infer(windows(1)).shape == (1, 3, *SIZE)
    only = package(model.parent, allowed=("onnxruntime",))
    with pytest.raises(EngineUnavailable, match="may not run on openvino"):
        open_engine(only, "openvino")


def test_an_engine_that_fails_is_passed_over_and_named(model, caplog):
    """SCOPE F8: an engine that cannot run the package gives way to the next one and says why."""
    engine = open_engine(
        package(model.parent, allowed=("tensorrt", "onnxruntime", "openvino"), precision="bf16")
    )
    if engine.kind == "openvino":  # a CPU with native bf16; ONNX Runtime has none
        assert engine.passed_over[0].startswith("onnxruntime: ONNX Runtime has no bf16")
        assert "passed over" in caplog.text


def test_no_engine_left_names_every_reason(tmp_path):
    """SCOPE F8, I7: every reason is in the sentence."""
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(EngineUnavailable, match=r"openvino: .*onnxruntime: "):
        open_engine(package(tmp_path))
    with pytest.raises(EngineUnavailable, match="none of the allowed"):
        open_engine(package(tmp_path, allowed=("tensorrt",)))


def test_compiled_networks_are_kept_in_the_cache(model, tmp_path):
    """SCOPE F9: with a cache folder the compiled network is written there and used again."""
    for _ in range(2):
        with OpenVinoEngine(model, EngineSettings(cache=tmp_path)) as engine:
            engine.warm_up(SIZE)
    assert len(list(tmp_path.iterdir())) == 1
