"""Training: recipes, cases, augmentation, loop, classical labels, export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.anatomy import Body
from models.errors import RecipeInvalid
from models.manifest import Input, read_manifest
from models.metrics import dice
from models.phantom import LEFT_LUNG, RIGHT_LUNG, PhantomSpec, thorax_phantom
from models.training.cases import phantom_cases, random_spec
from models.training.classical import Rule, classical_lungs
from models.training.recipe import read_recipe

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from models.export import check_parity, export_onnx  # noqa: E402
from models.networks.catalogue import NetworkSpec, build  # noqa: E402
from models.training.augment import draw  # noqa: E402
from models.training.loop import CHECKPOINT, batch, load, train  # noqa: E402

RECIPE = """
name = "tiny"
seed = 3
[input]
spacing_mm = [8.0, 8.0, 8.0]
clip = [-1000.0, 400.0]
[window]
size = [32, 32, 32]
[network]
channels = [4, 8]
residual_units = 1
norm = "{norm}"
[data]
phantoms = 2
[schedule]
steps = {steps}
patches = [[32, 32, 32]]
voxels_per_step = 65536
threads = 1
"""


def _recipe(folder: Path, steps: int = 6, norm: str = "batch", text: str = RECIPE) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text.format(steps=steps, norm=norm))
    return path


@pytest.mark.parametrize("name", ["ct-lungs", "ct-lungs-refine"])
def test_shipped_recipe_is_valid(name: str) -> None:
    """SCOPE D: the recipes of the shipped model pass their own checks, for the shipped preparation."""
    folder = Path(__file__).parents[2] / "models"
    recipe = read_recipe(folder / "recipes" / f"{name}.toml")
    assert recipe.name == "ct-lungs"
    assert len(recipe.digest) == 64
    manifest = read_manifest(folder / "library" / "ct-lungs" / "model.toml")
    assert (recipe.input, recipe.window) == (manifest.input, manifest.window)


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("steps =", "stepps =", "schedule.stepps"),
        ("seed = 3", "seed = 'x'", "seed"),
        ("size = [32, 32, 32]", "size = [32, 32, 31]", "multiple of 2"),
        ("phantoms = 2", "phantoms = 0", "nothing to train on"),
        ("name =", "name", "not TOML"),
    ],
)
def test_wrong_recipe_names_the_key(tmp_path: Path, good: str, bad: str, named: str) -> None:
    """SCOPE D: a misspelt key or an impossible value is refused with its place."""
    with pytest.raises(RecipeInvalid, match=named):
        read_recipe(_recipe(tmp_path, text=RECIPE.replace(good, bad)))


def test_missing_recipe(tmp_path: Path) -> None:
    """SCOPE D: a recipe that is not there is refused by name."""
    with pytest.raises(RecipeInvalid, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_classical_rule_finds_the_phantoms_lungs() -> None:
    """SCOPE D6: the rule that labels real CT agrees with a reference known exactly, sides included."""
    phantom = thorax_phantom(
        PhantomSpec(shape=(80, 150, 170), spacing_mm=(4.0, 2.4, 2.4), noise_hu=20.0, body=Body(lesions=0))
    )
    found = classical_lungs(phantom.volume)
    for number in (LEFT_LUNG, RIGHT_LUNG):
        assert dice(found, phantom.labels, number) > 0.95


def test_classical_rule_finds_nothing_without_lung() -> None:
    """SCOPE D6: an abdomen has no lung, where pure air is taken to reach up to its gas of -960 HU."""
    spec = PhantomSpec(shape=(30, 120, 140), spacing_mm=(5.0, 3.0, 3.0), centre_mm=(0.0, 10.0, -330.0))
    assert not classical_lungs(thorax_phantom(spec).volume, Rule(pure_hu=-935.0)).any()


def test_cases_repeat_and_some_have_no_lung(tmp_path: Path) -> None:
    """SCOPE D4: the same seed gives the same cases, another seed others; every sixth is without lung."""
    spec = Input(spacing_mm=(8.0, 8.0, 8.0), clip=(-1000.0, 400.0))
    first, again, other = (phantom_cases(6, seed, spec) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
    assert not np.array_equal(first[0].image, other[0].image)
    assert not first[5].labels.any()
    assert any(case.labels.any() for case in first[:5])
    positions = {random_spec(np.random.default_rng(n)).position for n in range(60)}
    assert positions == {"HFS", "FFS", "HFP", "FFP"}


def test_mirror_swaps_the_sides(tmp_path: Path) -> None:
    """SCOPE D2: a mirrored patch has its left lung on the left again."""
    recipe = read_recipe(_recipe(tmp_path))
    case = phantom_cases(1, 5, recipe.input)[0]
    size = (32, 48, 64)
    still = recipe.augmentation.model_copy(update={"rotation_deg": 0.0, "scale": 0.0, "shift": 0.0})
    for mirror in (0.0, 1.0):
        rules = still.model_copy(update={"mirror": mirror})
        patch = draw(case, size, rules, np.random.default_rng(0))
        assert patch.image.shape == patch.labels.shape == (1, *size)
        assert 0.0 <= float(patch.image.min()) <= float(patch.image.max()) <= 1.0
        left, right = (
            np.argwhere(patch.labels[0].numpy() == n)[:, 2].mean() for n in (LEFT_LUNG, RIGHT_LUNG)
        )
        assert left > right + 5


def test_training_learns_and_repeats(tmp_path: Path) -> None:
    """SCOPE D: the loss falls, the checkpoint loads, the same recipe gives the same weights."""
    recipe = read_recipe(_recipe(tmp_path, steps=30))
    cases = phantom_cases(recipe.data.phantoms, recipe.seed, recipe.input)
    trained = train(recipe, cases, tmp_path / "a")
    again = train(recipe, cases, tmp_path / "b")
    weights, others = trained.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    loaded = load(tmp_path / "a" / CHECKPOINT)
    assert loaded.spec == trained.spec
    image, labels = batch(recipe, cases, 0)
    with torch.inference_mode():
        scores = trained.network(image)
        assert torch.equal(scores, loaded.network(image))
    fresh = build(trained.spec).eval()
    loss = torch.nn.functional.cross_entropy
    assert loss(scores, labels[:, 0]) < 0.8 * loss(fresh(image), labels[:, 0])


def test_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """SCOPE D3: a second stage begins where the first ended; a checkpoint of another network is refused."""
    recipe = read_recipe(_recipe(tmp_path, steps=2))
    cases = phantom_cases(recipe.data.phantoms, recipe.seed, recipe.input)
    first = train(recipe, cases, tmp_path / "first")
    second = train(recipe, cases, tmp_path / "second", start=tmp_path / "first" / CHECKPOINT)
    weights, others = first.network.state_dict(), second.network.state_dict()
    assert not all(torch.equal(weights[name], others[name]) for name in weights)
    other = read_recipe(_recipe(tmp_path, norm="instance"))
    with pytest.raises(RecipeInvalid, match="not the recipe's"):
        train(other, cases, tmp_path / "third", start=tmp_path / "first" / CHECKPOINT)


def test_missing_checkpoint(tmp_path: Path) -> None:
    """SCOPE D: a checkpoint that is not there is refused by name."""
    with pytest.raises(RecipeInvalid, match="no checkpoint"):
        load(tmp_path / "none.pt")


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_export_agrees_in_every_engine(tmp_path: Path, norm: str) -> None:
    """SCOPE F6, F8, F9: ONNX Runtime and OpenVINO give torch's labels at two shapes and batches."""
    torch.manual_seed(1)
    spec = replace(NetworkSpec(channels=(4, 8, 12), residual_units=1), norm=norm)  # type: ignore[arg-type]
    network = build(spec).eval()
    path = tmp_path / "model.onnx"
    export_onnx(network, spec, path)
    for parity in check_parity(network, spec, path):
        assert parity.same_labels > 0.999
        assert parity.largest_difference < 1e-3
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
