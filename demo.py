"""Run the whole pipeline on simulated scenes: the README's five commands, a table of scores, two figures.

Everything is written to the folder demo/ beside this file, which each run empties first if an earlier run made it. A
small network (24 channels, 2 blocks) trains for a few minutes on 2 CPU cores. A linear map RGB -> 31 bands, fitted by
least squares to the same training pixels, is scored beside it, on validation scenes that neither was fitted to. The
network is last.pth, because best.pth is selected by these scenes.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drcr.formats.mat import read_cube
from drcr.images import normalise_rgb, read_rgb
from drcr.scoring.scoring import median_scene, read_scores
from drcr.scoring.tables import text_table
from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import DataError

ROOT = Path(__file__).resolve().parent
DEMO = ROOT / "demo"
MARK = ".made_by_demo"
"""By this file a later run knows the folder as its own."""


def run_commands(epochs: int) -> None:
    """Run the README's commands on simulated scenes, and those of the linear map."""
    step(
        ROOT / "Dataset",
        "simulate.py --data_path ../demo/Dataset --n_train 100 --n_valid 10 --size 128 128 --radii 8 96",
    )
    step(
        ROOT / "train",
        "train_data_preprocess.py --data_path ../demo/Dataset --patch_size 32 --stride 32 "
        "--train_data_path ../demo/dataset/Train",
    )
    step(
        ROOT / "train", "valid_data_preprocess.py --data_path ../demo/Dataset --valid_data_path ../demo/dataset/Valid"
    )
    step(
        ROOT / "train",
        f"main.py --channels 24 --n_blocks 2 --batchSize 8 --end_epoch {epochs} --max_iter {200 * epochs} "
        "--init_lr 2e-3 "
        "--train_data_path ../demo/dataset/Train --valid_data_path ../demo/dataset/Valid "
        "--outf ../demo/RealWorldResults",
    )
    step(
        ROOT / "test",
        "test.py --RGB_dir ../demo/Dataset/Valid_RGB --model_dir ../demo/RealWorldResults/last.pth "
        "--result_dir ../demo/test_results",
    )
    score = "compute_mrae.py --path_gt ../demo/Dataset/Valid_spectral --path_rec"
    step(ROOT / "test", f"{score} ../demo/test_results --table ../demo/scores.csv")

    print("\nThe same for a linear map RGB -> 31 bands, fitted by least squares to the same training pixels:")
    step(
        ROOT / "test",
        "baseline.py --train_data_path ../demo/dataset/Train --RGB_dir ../demo/Dataset/Valid_RGB "
        "--result_dir ../demo/linear_results",
    )
    step(ROOT / "test", f"{score} ../demo/linear_results --table ../demo/scores_linear.csv")


def print_scores() -> str:
    """Print the scores of both methods; return the scene with the network's median MRAE."""
    tables = {
        "DRCR Net (24 channels, 2 blocks)": read_scores(DEMO / "scores.csv"),
        "linear map, least squares": read_scores(DEMO / "scores_linear.csv"),
    }
    network = next(iter(tables.values()))
    print(f"\nmean over {len(network) - 1} scenes that neither method was fitted to")
    print(text_table(tables, ["average"]))
    ours, theirs = ({name: row["mrae"] for name, row in table.items()} for table in tables.values())
    mean, other_mean = ours.pop("average"), theirs.pop("average")
    print(
        f"The network's MRAE, its training loss, is {1 - mean / other_mean:.0%} lower.\n"
        f"It is lower on {sum(ours[name] < theirs[name] for name in ours)} of {len(ours)} scenes; "
        f"the medians are {np.median(list(ours.values())):.3f} and {np.median(list(theirs.values())):.3f}."
    )
    return median_scene(network)


def draw(name: str) -> None:
    """Draw a scene and the training run."""
    from drcr.figures.scenes import plot_curves, plot_reconstruction  # matplotlib takes a second to import

    plot_reconstruction(
        DEMO / "reconstruction.png",
        normalise_rgb(read_rgb(DEMO / "Dataset/Valid_RGB" / f"{name}.jpg")),
        read_cube(DEMO / "Dataset/Valid_spectral" / f"{name}.mat"),
        {
            "DRCR Net": read_cube(DEMO / "test_results" / f"{name}.mat"),
            "linear map": read_cube(DEMO / "linear_results" / f"{name}.mat"),
        },
    )
    plot_curves(DEMO / "curves.png", DEMO / "RealWorldResults/loss.csv")
    print(f"\nfigures: {os.path.relpath(DEMO / 'reconstruction.png')} (scene {name})")
    print(f"         {os.path.relpath(DEMO / 'curves.png')}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo."""
    parser = cli.parser(__doc__)
    parser.add_argument("--epochs", type=cli.at_least(1), default=12, help="epochs to train, of 200 iterations each")
    epochs = parser.parse_args(argv).epochs
    start = time.perf_counter()
    if DEMO.exists() and not (DEMO / MARK).exists():
        raise DataError(f"{DEMO}: exists and is not an earlier demo; move it, or remove it")
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    (DEMO / MARK).touch()
    run_commands(epochs)
    draw(print_scores())
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    cli.run(main)
