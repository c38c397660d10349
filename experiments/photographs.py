"""Train and score the shipped networks: one for photographs, one for linear images, beside two maps per pixel.

Of the 24 scenes of Dataset/cave_split_24.txt, 14 train at first, 2 are watched in training, and 8 are held out. Of
the cameras in --cameras, 20 train and 6 are held out.

Training data: pairs of 128 x 128 pixels that training_pairs.py makes of the 14 scenes and of the structure of other
images. The base map is fitted to them, the brightness rule to whole images of the 14 scenes: 6 photographs (--preset
photograph) by training cameras, or 3 linear images (--preset real-world). Both networks are DRCR Nets that correct
the base (drcr/correction.py). Small ones of 32 channels are trained first, that for linear images from the other's
weights; then they are widened to 48 and trained on. At last they are trained on with all 24 scenes, for the networks
in test/model, and four times with all but two or three of the ten that were not trained on: a cross-validation.

Scored are 2 photographs of each held-out scene by held-out cameras, and its linear image as NTIRE 2022 describes it,
each by a network and maps that do not know its scene. "Best scale" is the MRAE after each reconstruction is
multiplied by the one number that makes its MRAE lowest: an exposed image does not tell how bright its scene was.

`--stages cross-validate` trains on three quarters of all 24 scenes from the start and scores the others, four times,
by the same commands, but shorter: 2,000 iterations from random weights, on 1,000 pairs. It says how much the scores
depend on which scenes are held out.

OUT holds the data, the runs, the cubes, RESULTS.md, folds/RESULTS.md, photograph.png and learning.png. What an
interrupted run has finished is kept. All networks are last.pth: no checkpoint is chosen. Those in test/model are
OUT/last/KIND_all/run/last.pth, exported by train/export.py.
"""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from drcr.checkpoint import load_model, save_checkpoint
from drcr.correction import Correction, network_of
from drcr.cube import raise_to_floor
from drcr.formats.mat import read_cube
from drcr.images import IMAGE_SUFFIXES, read_image, read_rgb
from drcr.metrics import best_scale_mrae
from drcr.networks import widen
from drcr.scoring.scoring import median_scene, read_scores
from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.extras import needs
from drcr.utils.files import DataError, list_files, write_atomically

with cli.imports(), needs("figures", "photographs.py"):
    import matplotlib.pyplot as plt

    from drcr.figures.scenes import plot_reconstruction

ROOT = Path(__file__).resolve().parents[1]
FLOOR = 0.01
HELD_OUT = (
    "cloth", "face", "fake_and_real_food", "feathers", "glass_tiles", "stuffed_toys", "jelly_beans",
    "fake_and_real_beers",
)  # fmt: skip
WATCHED = ("egyptian_statue", "real_and_fake_apples")
HELD_OUT_CAMERAS = (
    "Canon_60D", "Hasselblad_H2", "Nikon_D3500_spectroscope", "Nikon_D90", "Olympus_E-PL2",
    "Point_Grey_Grasshopper2_14S5C",
)  # fmt: skip
PHOTOGRAPHS = 6
"""Of each scene, for the brightness rule."""
KINDS = {"photographs": ("_p101", "_p102"), "linear": ("_l0",)}
"""Each kind of image, and how the names of held-out images end."""
GAINS = "--gains 2.2933984 1 1.62308182"
"""Of the challenge's camera."""
TRAINING = (
    "--n_blocks 3 --base root-polynomial --loss si-mrae+sam --recipe flip,clip --batchSize 3 --end_epoch 1000 "
    "--resume auto"
)
RUNS = {
    "first": ("photographs", 32, None, 7000, 1e-3),
    "narrow_photographs": ("photographs", 32, "first", 2000, 5e-4),
    "narrow_linear": ("linear", 32, "first", 3600, 8e-4),
    "wide_photographs": ("photographs", 48, "narrow_photographs", 8500, 8e-4),
    "wide_linear": ("linear", 48, "narrow_linear", 8500, 8e-4),
    "photographs": ("photographs", 48, "wide_photographs", 6200, 4.5e-4),
    "linear": ("linear", 48, "wide_linear", 6200, 6e-4),
}
"""The trainings, in their order: the kind of their images, channels, the run they go on from, iterations, learning
rate at the first."""
FOLDS = 4
FOLD_PAIRS = 1000
FOLD_RUN = (48, 2000, 1e-3)
"""Channels, iterations, learning rate."""
LAST_RUN = (48, 750, 2e-4)
LAST = {str(i): (*HELD_OUT, *WATCHED)[i::FOLDS] for i in range(FOLDS)} | {"all": ()}
"""The scenes that each of the last trainings leaves out: they are new to all trainings before it."""
SCORES = ("mrae", "rmse", "sam")
HEAD = "| | MRAE | at best scale | RMSE | SAM deg |\n|---|---|---|---|---|"
NEW_TO_BOTH = HELD_OUT[:6]  # the network for linear images before was trained on the others
NAMES = {"photographs": "model.pth", "linear": "linear.pth"}
LOGGED = r"iteration (\d+): .* loss ([\d.]+)$"
KIND_OF = {"p": "photographs", "l": "linear"}
METHODS = {
    "network": "DRCR Net, cross-validated",
    "fourteen": "DRCR Net, trained on 14 scenes",
    "before": "DRCR Net, the one before",
    "polynomial": "root-polynomial, degree 4",
    "linear": "linear, least squares",
}
MAPS = ("polynomial", "linear")


def split_cameras(source: Path, out: Path) -> None:
    """Link the cameras into OUT/cameras/train and OUT/cameras/held_out."""
    for name, path in list_files(source, (".csv",), "cameras").items():
        link(path, out / "cameras" / ("held_out" if name in HELD_OUT_CAMERAS else "train") / path.name)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, where it is not there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.resolve())


def gather(cubes: Path, images: Path, out: Path, part: str, suffix: str, scenes: Sequence[str] | None = None) -> None:
    """Link pairs of a cube and an image, of `scenes` or all, as OUT/PART_{spectral,RGB}/NAME_SUFFIX."""
    for path in sorted(images.iterdir()):
        if scenes is None or path.stem in scenes:
            link(cubes / f"{path.stem}.mat", out / f"{part}_spectral" / f"{path.stem}_{suffix}.mat")
            link(path, out / f"{part}_RGB" / f"{path.stem}_{suffix}{path.suffix}")


def import_scenes(source: Path, out: Path) -> None:
    """Import the scenes, each with a linear image."""
    names = [
        line.split()[1] for line in (ROOT / "Dataset/cave_split_24.txt").read_text().splitlines() if line[0] != "#"
    ]
    rest = [name for name in names if name not in (*HELD_OUT, *WATCHED)]
    for folder, train, valid in (("scenes", rest, WATCHED), ("held_out", [], HELD_OUT)):
        split = out / f"{folder}.txt"
        text = "".join([f"Train {name}\n" for name in train] + [f"Valid {name}\n" for name in valid])
        write_atomically(split, lambda file, text=text: file.write(text.encode()))
        step(
            ROOT / "Dataset",
            f"import_cave.py --source {shlex.quote(str(source))} --out {out / folder} --split {split} --size 256 "
            "--keep",
        )


def render(cubes: Path, images: Path, options: str) -> None:
    """Render an image of each cube of a folder."""
    step(ROOT / "Dataset", f"render_rgb.py --spectral_dir {cubes} --rgb_dir {images} {options} --keep")


def photograph_options(cameras: Path, seed: int) -> str:
    """Return the options of render_rgb.py for photographs by the cameras of a folder."""
    return f"--preset photograph --light E --camera {cameras} --seed {seed}"


def training_images(out: Path, challenge: Path, photographs: int) -> dict[str, str]:
    """Return the options of render_rgb.py for images to fit the brightness rule to, by their names' endings."""
    options = {f"p{seed}": photograph_options(out / "cameras/train", seed) for seed in range(1, photographs + 1)}
    return options | {"l1": f"--camera {challenge} {GAINS}", "l2": f"--camera {out}/cameras/train"}


def make_pairs(
    out: Path, kind: str, scenes: Path, images: Sequence[Path], challenge: Path, where: Path, count: int
) -> None:
    """Make the pairs of a kind to train on."""
    folders = " ".join(shlex.quote(str(folder)) for folder in images)
    step(
        ROOT / "experiments",
        f"training_pairs.py --kind {kind} --scenes {scenes} --images {folders} --cameras {out}/cameras/train "
        f"--challenge_camera {challenge} --count {count} --out {where}",
    )


def make_images(out: Path, challenge: Path, images: Sequence[Path], count: int) -> None:
    """Render whole images of all scenes, and make the pairs to train on."""
    scenes = out / "scenes"
    for part, count_of_part in (("Train", PHOTOGRAPHS), ("Valid", 1)):
        cubes, rendered = scenes / f"{part}_spectral", out / "images" / part
        for name, options in training_images(out, challenge, count_of_part).items():
            render(cubes, rendered / name, options)
            gather(cubes, rendered / name, out / "whole" / KIND_OF[name[0]], part, name)
        gather(cubes, scenes / f"{part}_RGB", out / "whole/linear", part, "l0")
    for kind in KINDS:
        make_pairs(out, kind, scenes / "Train_spectral", images, challenge, out / "pairs" / kind, count)
    cubes = out / "held_out/Valid_spectral"
    for seed in (101, 102):
        folder = out / "images/held_out" / f"p{seed}"
        render(cubes, folder, photograph_options(out / "cameras/held_out", seed))
        gather(cubes, folder, out / "test/photographs", "Valid", f"p{seed}")
    gather(cubes, out / "held_out/Valid_RGB", out / "test/linear", "Valid", "l0")


def prepare(pairs: Path, whole: Path, prepared: Path) -> None:
    """Prepare pairs, whole images and those that are watched."""
    dark = f"--non_positive floor {FLOOR}"
    for data, name, size in (
        (pairs, "pairs", "--patch_size 64 --stride 32"),
        (whole, "whole", "--patch_size 128 --stride 64"),
    ):
        step(
            ROOT / "train",
            f"train_data_preprocess.py --data_path {data} {size} {dark} --train_data_path {prepared / name}",
        )
    step(ROOT / "train", f"valid_data_preprocess.py --data_path {whole} {dark} --valid_data_path {prepared}/Valid")


def train_network(
    kind: str, channels: int, iterations: int, rate: float, prepared: Path, run: Path, challenge: Path, more: str = ""
) -> None:
    """Train a network on prepared data."""
    if kind == "linear":
        more += f" --camera {challenge} {GAINS}"
    step(
        ROOT / "train",
        f"main.py {TRAINING} --channels {channels} --max_iter {iterations} --init_lr {rate} {more} "
        f"--train_data_path {prepared}/pairs --brightness_data {prepared}/whole --valid_data_path {prepared}/Valid "
        f"--outf {run}",
    )


def train(out: Path, challenge: Path, images: Sequence[Path]) -> None:
    """Prepare the data and train both networks: on 14 scenes, then on all, and on all but some."""
    for kind in KINDS:
        prepare(out / "pairs" / kind, out / "whole" / kind, out / "prepared" / kind)
    for run, (kind, channels, start, iterations, rate) in RUNS.items():
        more = ""
        if start is not None:
            torch.manual_seed(0)
            start_from = load_model(out / start / "last.pth")
            start_from.network = widen(network_of(start_from), channels, to_train=True)
            save_checkpoint(out / f"{run}_start.pth", start_from)
            more = f"--init {out}/{run}_start.pth"
        train_network(kind, channels, iterations, rate, out / "prepared" / kind, out / run, challenge, more)
    render_all(out, challenge)
    for kind in KINDS:
        train_last(out, kind, challenge, images)


def train_last(out: Path, kind: str, challenge: Path, images: Sequence[Path]) -> None:
    """Train the network of 14 scenes on, four times with some of the other scenes left out, then with all."""
    for name, held in LAST.items():
        fold = last_of(out, kind, name)
        train_fold(fold, kind, held, out, challenge, images, LAST_RUN, f"--init {out / kind}/last.pth")


def last_of(out: Path, kind: str, name: str) -> Path:
    """Return the folder of one of the last trainings."""
    return out / "last" / f"{kind}_{name}"


def cross_validate(out: Path, challenge: Path, images: Sequence[Path]) -> str:
    """Train on three quarters of the scenes and score the others, four times; return the tables."""
    render_all(out, challenge)
    scenes = sorted(path.stem for path in (out / "folds/spectral").iterdir())
    folds = [scenes[i::FOLDS] for i in range(FOLDS)]
    rows = {f"all {len(scenes)}": scenes, f"the {len(HELD_OUT)} that are held out elsewhere": HELD_OUT}
    rows |= {f"part {i}": held for i, held in enumerate(folds, 1)}
    lines = []
    for kind, endings in KINDS.items():
        table, scaled, logs = {}, {}, []
        for i, held in enumerate(folds):
            fold = out / "folds" / f"{kind}_{i}"
            train_fold(fold, kind, held, out, challenge, images, FOLD_RUN)
            found = score_method(fold / "test", "network", [network_on(fold / "run", f"{fold}/test/Valid_RGB")])
            table, scaled = table | found[0], scaled | found[1]
            logs += brightness_of(fold / "run/last.pth", fold / "test")
        lines += [f"{kind}: cross-validation by scene, {len(scenes) * len(endings)} images", "", HEAD]
        for title, held in rows.items():
            lines.append(row_of(title, table, scaled, [scene + ending for scene in held for ending in endings]))
        guessed, true = np.transpose(logs)
        error = np.sqrt(np.mean((guessed - true) ** 2))
        lines += ["", f"Brightness rule: {error:.2f} in log e, root mean square; a constant: {true.std():.2f}", ""]
    return "\n".join(lines)


def brightness_of(network: Path, test: Path) -> list[tuple[float, float]]:
    """Return the logarithm of the brightness of each image's scene, as the rule has it and as it is."""
    model, found = cast(Correction, load_model(network)), []
    for name, path in list_files(test / "Valid_RGB", IMAGE_SUFFIXES, "RGB images").items():
        cube, _ = raise_to_floor(read_cube(test / f"Valid_spectral/{name}.mat"), FLOOR)
        x, y = (torch.tensor(v).flatten(0, 1)[None] for v in (read_image(path, "auto").normalised(), cube))
        found.append(tuple(float((f * x.mean()).log()) for f in (model.brightness(x), model.true_brightness(x, y))))
    return found


def render_all(out: Path, challenge: Path) -> None:
    """Gather all scenes in OUT/folds, with all their images."""
    folder = out / "folds"
    for part in ("scenes/Train", "scenes/Valid", "held_out/Valid"):
        for source, name in (("spectral", "spectral"), ("RGB", "l0")):
            for path in sorted((out / f"{part}_{source}").iterdir()):
                link(path, folder / name / path.name)
    held_out = {f"p{seed}": photograph_options(out / "cameras/held_out", seed) for seed in (101, 102)}
    for name, options in (training_images(out, challenge, PHOTOGRAPHS) | held_out).items():
        render(folder / "spectral", folder / name, options)


def split_fold(folder: Path, kind: str, held: Sequence[str], fold: Path) -> None:
    """Link into FOLD the images of FOLDER to train on, none of the scenes `held`, and those of `held` to score."""
    cubes = folder / "spectral"
    kept = sorted(path.stem for path in cubes.iterdir() if path.stem not in held)
    for scene in kept:
        link(cubes / f"{scene}.mat", fold / "scenes" / f"{scene}.mat")
    names = {"photographs": [f"p{seed}" for seed in range(1, PHOTOGRAPHS + 1)], "linear": ["l0", "l1", "l2"]}
    for name in names[kind]:
        gather(cubes, folder / name, fold / "whole", "Train", name, kept)
        gather(cubes, folder / name, fold / "whole", "Valid", name, kept[:1])  # watched, and not used
    for ending in KINDS[kind]:
        gather(cubes, folder / ending[1:], fold / "test", "Valid", ending[1:], held)


def train_fold(
    fold: Path,
    kind: str,
    held: Sequence[str],
    out: Path,
    challenge: Path,
    images: Sequence[Path],
    run: tuple[int, int, float],
    more: str = "",
) -> None:
    """Train on all scenes but those `held`."""
    split_fold(out / "folds", kind, held, fold)
    for part in ("Train_RGB", "Train_spectral"):  # pseudo-scenes are the same whatever the scenes are
        for path in sorted((out / "pairs" / kind / part).glob("pseudo_*")):
            if int(path.stem[-5:]) < FOLD_PAIRS:
                link(path, fold / "pairs" / part / path.name)
    make_pairs(out, kind, fold / "scenes", images, challenge, fold / "pairs", FOLD_PAIRS)
    prepare(fold / "pairs", fold / "whole", fold / "prepared")
    train_network(kind, *run, fold / "prepared", fold / "run", challenge, more)


def row_of(title: str, table: dict, scaled: dict[str, float], names: Sequence[str]) -> str:
    """Return a row of means over images."""
    mrae, rmse, sam = (np.mean([table[name][score] for name in names]) for score in SCORES)
    best = np.mean([scaled[name] for name in names])
    return f"| {title} | {mrae:.4f} | {best:.4f} | {rmse:.4f} | {sam:.2f} |"


def score(out: Path, before: Path | None) -> str:
    """Reconstruct and score the held-out images; return the tables."""
    lines = []
    for kind, endings in KINDS.items():
        folder = out / "test" / kind
        ways = {method: cross_validated(out, kind, method) for method in ("network", *MAPS)}
        ways["fourteen"] = [network_on(out / kind, f"{folder}/Valid_RGB")]
        if before is not None:
            ways["before"] = [f"test.py --model_dir {before / NAMES[kind]} {folder}/Valid_RGB"]
        tables, scaled = {}, {}
        for method in METHODS:
            if method in ways:
                tables[method], scaled[method] = score_method(folder, method, ways[method])
        for scenes in (HELD_OUT, NEW_TO_BOTH) if before else (HELD_OUT,):
            names = [scene + ending for scene in scenes for ending in endings]
            lines += [f"{kind}: mean over {len(names)} images of {len(scenes)} scenes", ""]
            lines += [HEAD, *(row_of(METHODS[way], tables[way], scaled[way], names) for way in tables), ""]
    return "\n".join(lines)


def cross_validated(out: Path, kind: str, method: str) -> list[str]:
    """Return the commands that reconstruct the held-out images, each by what does not know its scene."""
    folder, commands = out / "test" / kind / "Valid_RGB", []
    for name, held in LAST.items():
        images = [f"{folder}/{scene}{ending}.jpg" for scene in held if scene in HELD_OUT for ending in KINDS[kind]]
        fold = last_of(out, kind, name)
        if images:
            fitted = f"baseline.py --method {method} --train_data_path {fold}/prepared/whole {' '.join(images)}"
            commands.append(fitted if method in MAPS else network_on(fold / "run", *images))
    return commands


def network_on(run: Path, *images: str) -> str:
    """Return the command that reconstructs images, or a folder of them, with the network of a run."""
    return f"test.py --model_dir {run}/last.pth {' '.join(images)}"


def score_method(folder: Path, method: str, commands: Sequence[str]) -> tuple[dict, dict[str, float]]:
    """Reconstruct by commands; return the scores on the images of a folder, and the MRAE at best scale, by image."""
    truth = folder / "Valid_spectral"
    if not (folder / f"{method}.csv").exists():
        for command in commands:
            step(ROOT / "test", f"{command} --result_dir {folder / method}")
        step(
            ROOT / "test",
            f"compute_mrae.py --path_rec {folder / method} --path_gt {truth} --non_positive floor {FLOOR} "
            f"--table {folder}/{method}.csv",
        )
    scaled = {
        path.stem: best_scale_mrae(
            read_cube(folder / method / path.name).clip(0, 1), raise_to_floor(read_cube(path), FLOOR)[0]
        )
        for path in sorted(truth.iterdir())
    }
    return read_scores(folder / f"{method}.csv"), scaled


def draw(out: Path) -> None:
    """Draw the held-out photograph of median MRAE: bands, errors, spectra beside the truth."""
    folder = out / "test/photographs"
    name = median_scene(read_scores(folder / "network.csv"))
    truth, _ = raise_to_floor(read_cube(folder / f"Valid_spectral/{name}.mat"), FLOOR)
    photograph = read_rgb(list_files(folder / "Valid_RGB", IMAGE_SUFFIXES, "RGB images")[name])
    methods = [method for method in METHODS if method not in ("before", "fourteen")]
    recs = {METHODS[method]: read_cube(folder / method / f"{name}.mat") for method in methods}
    plot_reconstruction(out / "photograph.png", np.float32(photograph) / 255, truth, recs)
    draw_learning(out)


def draw_learning(out: Path) -> None:
    """Draw the training losses of the last size: single batches, as logs have them, and means over seven.

    A log has one every three minutes, so a run of a few minutes has too few. Dotted: where the last run began, that
    on all scenes.
    """
    seven = np.full(7, 1 / 7)
    figure, axes = plt.subplots(figsize=(5, 2.6), dpi=140)
    for kind in KINDS:
        started, finished, found = 0, 0, []
        runs = {run: row[3] for run, row in RUNS.items() if row[:2] == (kind, LAST_RUN[0])}
        for run, iterations in (runs | {f"last/{kind}_all/run": LAST_RUN[1]}).items():
            log = (out / run / "train.log").read_text()
            started, finished = finished, finished + iterations
            found += [(started + int(i), float(loss)) for i, loss in re.findall(LOGGED, log, re.MULTILINE)]
        if len(found) < len(seven):
            continue
        steps, losses = np.array(found, float).T
        (line,) = axes.plot(*(np.convolve(values, seven, "valid") for values in (steps, losses)), label=kind)
        axes.plot(steps, losses, ".", color=line.get_color(), alpha=0.4)
        axes.axvline(started, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="iteration", ylabel="training loss", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "learning.png")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the images, train, score."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of the CAVE data base")
    add("--cameras", type=Path, required=True, help="folder of the 26 cameras' CSV files")
    add(
        "--challenge_camera", type=Path, required=True, help="RGB_Camera_QE.csv, the camera that NTIRE 2022 published"
    )
    add("--images", type=Path, nargs="+", required=True, help="folders of images, for the structure of pseudo-scenes")
    add(
        "--pairs",
        type=cli.at_least(1),
        default=2400,
        help="number of training pairs of each kind; the last round has 1,000",
    )
    add("--out", type=Path, default="../photographs", help="folder for data, runs and results")
    add(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="folder of another model.pth and linear.pth, to score beside these",
    )
    add(
        "--stages",
        nargs="+",
        choices=("images", "train", "score", "cross-validate"),
        default=("images", "train", "score"),
        help="what to run",
    )
    args = parser.parse_args(argv)

    out, challenge = args.out.resolve(), args.challenge_camera.resolve()
    if shlex.quote(str(out)) != str(out):
        raise DataError(f"{out}: choose an --out without spaces and special characters")
    out.mkdir(parents=True, exist_ok=True)
    images = [folder.resolve() for folder in args.images]
    if "images" in args.stages:
        split_cameras(args.cameras, out)
        import_scenes(args.source.resolve(), out)
        make_images(out, challenge, images, args.pairs)
    if "train" in args.stages:
        train(out, challenge, images)
    if "score" in args.stages:
        table = score(out, args.before and args.before.resolve())
        write_atomically(out / "RESULTS.md", lambda file: file.write(table.encode()))
        draw(out)
        print(f"\n{table}\n{os.path.relpath(out / 'RESULTS.md')}")
    if "cross-validate" in args.stages:
        table = cross_validate(out, challenge, images)
        write_atomically(out / "folds/RESULTS.md", lambda file: file.write(table.encode()))
        print(f"\n{table}\n{os.path.relpath(out / 'folds/RESULTS.md')}")


if __name__ == "__main__":
    cli.run(main)
