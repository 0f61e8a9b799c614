"""`python -m models.training RECIPE --data DIR --output DIR`: train what a recipe says."""

import argparse
import logging
from pathlib import Path

from models.training.cases import phantom_cases, real_cases
from models.training.loop import train
from models.training.recipe import read_recipe


def main() -> None:
    """Trains what the recipe says; the checkpoint lies in the output folder."""
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with the real volumes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="checkpoint to begin with")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = read_recipe(arguments.recipe)
    cases = phantom_cases(recipe.data.phantoms, recipe.seed, recipe.input)
    cases += real_cases(recipe.data.real, arguments.data, "train", recipe.input)
    logging.getLogger(__name__).info("%d cases", len(cases))
    train(recipe, cases, arguments.output, start=arguments.start)


if __name__ == "__main__":
    main()
