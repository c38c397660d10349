"""Compare main.py's recipes at equal steps: the released one, each part added to it, and all.

On two sets of scenes, with RGB images by the preset real-world, dark values raised to 0.01:

  real       CAVE, 18 scenes to train and 6 to validate (Dataset/cave_split_24.txt), 256 x 256
  simulated  100 scenes to train and 12 to validate (Dataset/simulate.py), 128 x 128

Each is a folder of OUT with the data and the runs. Scored is the last checkpoint, not the best, on the validation
scenes, which no run saw: the MRAE of main.py's validation, and once more with images as other cameras might have
stored them (drcr.training.recipe.degrade, the same disturbances for all). What an interrupted run has finished is
kept. At the end OUT/RESULTS.md has the table.
"""

import csv
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.checkpoint import load_model
from drcr.data import ValidImages
from drcr.inference import reconstruct
from drcr.metrics import mrae
from drcr.training.recipe import PARTS, degrade
from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
FLOOR = 0.01
TRAINING = "--channels 24 --n_blocks 2 --batchSize 8 --end_epoch 20 --max_iter 2000 --init_lr 1e-3 --precision bf16"
RECIPES = ("released", *PARTS, "ema,cosine,clip", "flip,ema,cosine,clip", ",".join(PARTS))


def get_data(track: str, source: str, folder: str) -> None:
    """Run the commands that make and prepare a track's scenes in `folder`, as seen from Dataset/ and train/."""
    if track == "real":
        options = f"import_cave.py --source {source} --split cave_split_24.txt --size 256"
    else:
        options = "simulate.py --n_train 100 --n_valid 12 --size 128 128 --radii 8 96 --illuminants E"
    step(ROOT / "Dataset", f"{options} --out {folder} --preset real-world --keep")
    prepare = f"--data_path {folder} --non_positive floor {FLOOR}"
    size = "--patch_size 64 --stride 32"
    step(ROOT / "train", f"train_data_preprocess.py {prepare} {size} --train_data_path {folder}/prepared/Train")
    step(ROOT / "train", f"valid_data_preprocess.py {prepare} --valid_data_path {folder}/prepared/Valid")


def score(run: Path, valid: ValidImages) -> tuple[float, float]:
    """Return a run's MRAE on images as they are, as it validated itself, and on disturbed ones."""
    with open(run / "loss.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    model, disturbed = load_model(run / "last.pth"), []
    for i in tqdm(range(len(valid)), desc=run.name, unit="image", dynamic_ncols=True, leave=False):
        rgb, cube = valid[i]
        image = degrade(rgb.permute(1, 2, 0).numpy(), np.random.default_rng(i))
        disturbed.append(mrae(reconstruct(model, image / image.max()), cube.permute(1, 2, 0).numpy()))
    return float(last["valid_loss"]), float(np.mean(disturbed))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the recipes."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of the CAVE data base")
    add("--out", type=Path, default="../recipes", help="folder for data, runs and results")
    add("--tracks", nargs="+", choices=("real", "simulated"), default=("real", "simulated"), help="sets of scenes")
    add("--recipes", nargs="+", default=RECIPES, metavar="RECIPE", help="recipes, as main.py reads them")
    add("--seeds", nargs="+", type=cli.at_least(0), default=(0,), metavar="SEED", help="runs of each, to be averaged")
    add("--training", default=TRAINING, metavar="OPTIONS", help="main.py's other options, in quotes")
    args = parser.parse_args(argv)

    source = shlex.quote(os.path.relpath(args.source.resolve(), ROOT / "Dataset"))
    lines = []
    for track in args.tracks:
        folder = args.out.resolve() / track
        data = shlex.quote(os.path.relpath(folder, ROOT / "train"))  # the same from Dataset
        get_data(track, source, data)
        valid = ValidImages(folder / "prepared/Valid")
        lines += [f"{track}, mean over {len(valid)} scenes that no run saw, main.py {args.training}", ""]
        lines += ["| recipe | MRAE | disturbed images |", "|---|---|---|"]
        for recipe in args.recipes:
            scores = []
            for seed in args.seeds:
                name = f"{recipe.replace(',', '-')}-{seed}"
                step(
                    ROOT / "train",
                    f"main.py {args.training} --recipe {recipe} --seed {seed} --quiet --resume auto "
                    f"--train_data_path {data}/prepared/Train --valid_data_path {data}/prepared/Valid "
                    f"--outf {data}/{name}",
                )
                scores.append(score(folder / name, valid))
            cells = [f"{mean:.4f}" for mean in np.mean(scores, 0)]
            if len(scores) > 1:
                cells = [
                    f"{cell} ± {spread:.4f}" for cell, spread in zip(cells, np.std(scores, 0, ddof=1), strict=True)
                ]
            lines.append(f"| {recipe} | {' | '.join(cells)} |")
        lines.append("")
    text = "\n".join(lines)
    write_atomically(args.out / "RESULTS.md", lambda file: file.write(text.encode()))
    print(f"\n{text}\n{args.out / 'RESULTS.md'}")


if __name__ == "__main__":
    cli.run(main)
