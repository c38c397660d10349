"""Train and score DRCR Net on real scenes: the CAVE data base at half size, beside two baselines per pixel.

Runs the README's commands on the 24 scenes of Dataset/cave_split_24.txt, averaged to 256 x 256 pixels, dark values
raised to 0.01, in these tracks:

  clean            noise-free 8-bit images, PNG
  real-world       photon noise, exposure, JPEG, as NTIRE 2022 describes its images
  real-world-mrae  the same images, for comparison: the released loss, and no simulated scenes to train with

In the first two, 400 simulated scenes stand beside the 18 real ones to train with, and the loss is the absolute
error.

Each is a folder of OUT with the data, the run, the cubes and the scores; RESULTS.md there has the tables,
reconstruction.png and curves.png are the pictures. What an interrupted run has finished is kept. The scored network
is last.pth: best.pth would be chosen by the very scenes that it is scored on.
"""

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from drcr.cube import raise_to_floor
from drcr.figures.scenes import plot_curves, plot_reconstruction
from drcr.formats.mat import read_cube
from drcr.images import IMAGE_SUFFIXES, normalise_rgb, read_rgb
from drcr.metrics import HEADINGS
from drcr.scoring.scoring import Scores, median_scene, print_means, read_scores
from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import list_files, write_atomically

ROOT = Path(__file__).resolve().parents[1]
FLOOR, MIN_RADIANCE = 0.01, 0.02
NETWORK = "--channels 32 --n_blocks 3"
MIXED = (400, 128, 64, "--batchSize 2 --end_epoch 27 --max_iter 2400 --init_lr 1e-3 --loss l1")
REAL_ONLY = (0, 64, 32, "--batchSize 8 --end_epoch 27 --max_iter 3000 --init_lr 5e-4")
TRACKS = {
    "clean": ("clean", MIXED),
    "real-world": ("real-world", MIXED),
    "real-world-mrae": ("real-world", REAL_ONLY),
}
"""Of each track: the preset of its images; number of simulated scenes, patch size, stride, options of main.py."""
METHODS = {"network": "DRCR Net", "polynomial": "root-polynomial, degree 4", "linear": "linear, least squares"}


def run_track(track: str, source: str, out: Path, network: str) -> dict[str, Scores]:
    """Run the commands of a track; returns the scores by method."""
    data = shlex.quote(os.path.relpath(out / track, ROOT / "train"))  # the same from Dataset and test
    preset, (simulated, patch_size, stride, training) = TRACKS[track]
    dark = f"--non_positive floor {FLOOR}"
    step(
        ROOT / "Dataset",
        f"import_cave.py --source {source} --out {data} --split cave_split_24.txt --size 256 --preset {preset} "
        "--keep",
    )
    if simulated:  # under light of equal energy, as CAVE's cubes show: their white patches are flat
        step(
            ROOT / "Dataset",
            f"simulate.py --out {data} --n_train {simulated} --n_valid 0 --size 128 128 --radii 8 96 --illuminants E "
            f"--preset {preset} --keep",
        )
    prepared = f"{data}/prepared"
    step(
        ROOT / "train",
        f"train_data_preprocess.py --data_path {data} --patch_size {patch_size} --stride {stride} {dark} "
        f"--train_data_path {prepared}/Train",
    )
    step(ROOT / "train", f"valid_data_preprocess.py --data_path {data} {dark} --valid_data_path {prepared}/Valid")
    step(
        ROOT / "train",
        f"main.py {network} {training} --train_data_path {prepared}/Train --valid_data_path {prepared}/Valid "
        f"--outf {data}/run --resume auto",
    )
    step(
        ROOT / "test",
        f"test.py --RGB_dir {data}/Valid_RGB --model_dir {data}/run/last.pth --result_dir {data}/network",
    )
    for method in ("polynomial", "linear"):
        step(
            ROOT / "test",
            f"baseline.py --method {method} --train_data_path {prepared}/Train --RGB_dir {data}/Valid_RGB "
            f"--result_dir {data}/{method}",
        )
    for method in METHODS:
        step(
            ROOT / "test",
            f"compute_mrae.py --path_rec {data}/{method} --path_gt {data}/Valid_spectral {dark} "
            f"--min_radiance {MIN_RADIANCE} --csv {data}/{method}.csv",
        )
    return {method: read_scores(out / track / f"{method}.csv") for method in METHODS}


def draw(track: Path, scene: str) -> None:
    """Draw the pictures of a track."""
    truth, _ = raise_to_floor(read_cube(track / f"Valid_spectral/{scene}.mat"), FLOOR)
    plot_reconstruction(
        track / "reconstruction.png",
        normalise_rgb(read_rgb(list_files(track / "Valid_RGB", IMAGE_SUFFIXES, "RGB images")[scene])),
        truth,
        {name: read_cube(track / method / f"{scene}.mat") for method, name in METHODS.items()},
    )
    plot_curves(track / "curves.png", track / "run/loss.csv")


def markdown(track: str, tables: dict[str, Scores]) -> str:
    """Return a track's two tables: mean scores by method, and MRAE by scene."""
    lines = [f"{track}, mean over {len(next(iter(tables.values()))) - 1} scenes", ""]
    heads = [heading for heading, _ in HEADINGS.values()]
    lines += [f"| | {' | '.join(heads)} | MRAE from {MIN_RADIANCE} |", "|---|" + "---|" * (len(heads) + 1)]
    for method, table in tables.items():
        mean = table["average"]
        cells = [f"{mean[score]:.{digits}f}" for score, (_, digits) in HEADINGS.items()]
        lines.append(f"| {METHODS[method]} | {' | '.join(cells)} | {mean['bright_mrae']:.4f} |")
    lines += ["", "MRAE / RMSE / SAM by scene", ""]
    lines += [f"| scene | {' | '.join(METHODS.values())} |", "|---|" + "---|" * len(METHODS)]
    for scene in (name for name in next(iter(tables.values())) if name != "average"):
        rows = [table[scene] for table in tables.values()]
        cells = [f"{row['mrae']:.3f} / {row['rmse']:.4f} / {row['sam']:.1f}" for row in rows]
        lines.append(f"| {scene} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tracks."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of the CAVE data base")
    add("--out", type=Path, default="../cave", help="folder for data, runs and results")
    add("--tracks", nargs="+", choices=tuple(TRACKS), default=tuple(TRACKS), help="tracks to run")
    add("--network", default=NETWORK, metavar="OPTIONS", help="main.py's options for the network's size, in quotes")
    args = parser.parse_args(argv)

    out = args.out.resolve()
    source = shlex.quote(os.path.relpath(args.source.resolve(), ROOT / "Dataset"))
    for track in args.tracks:
        start = time.perf_counter()
        tables = run_track(track, source, out, args.network)
        draw(out / track, median_scene(tables["network"]))
        text = markdown(track, tables)
        write_atomically(out / track / "RESULTS.md", lambda file, text=text: file.write(text.encode()))
        print(f"\n{track}, mean over {len(tables['network']) - 1} scenes, {time.perf_counter() - start:.0f} s")
        print_means({METHODS[method]: table for method, table in tables.items()})
        print(f"{os.path.relpath(out / track)}: RESULTS.md, reconstruction.png, curves.png")


if __name__ == "__main__":
    cli.run(main)
