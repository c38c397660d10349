"""Make the table that says where a network's reconstructions are not to be trusted; test.py --confidence needs it.

Writes NAME.confidence.npz beside the checkpoint NAME.pth. test.py --confidence then gives for each pixel the spectral
angle to expect between the reconstruction and the unknown truth, and a bound on it. Both follow from one pass through
the network: from the brightness and clipping of the pixel, from the difference between the image and the
reconstruction projected back to RGB, from the distance to the colours of the training data, from how far training
spectra of the same colour differ from each other (metamers) and from the reconstruction, and from edges. Three steps:

1. What the training data tell of spectra by colour is summed up in groups of similar pixels (--train_data_path).
2. The expected angle is fitted to images of the training (--fit_data_path).
3. It is calibrated on scenes that the network was NOT trained on (--valid_data_path), or on scenes that were
   reconstructed by networks of a cross-validation (--unseen_model): split conformal prediction with the scene as the
   unit. Images with equal cubes are one scene, and its worst image counts.

What the bound means: with a probability of at least 1 - a, at least 90% of the pixels of a new image of this kind lie
within the bound. "Of this kind" means that scene, camera, light and noise are as those of the calibration. With n
scenes, a cannot be below 1/(n+1): with 10 scenes 0.09, with 4 scenes 0.2. The command prints a and n. For images of
another kind run it with data of that kind: the network stays as it is.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from drcr.checkpoint import SHIPPED, load_rgb_model
from drcr.compute.device import choose_device
from drcr.confidence.calibration import (
    Example,
    check_unseen,
    fit_angles,
    judge_example,
    learn_colours,
    read_examples,
    score,
)
from drcr.confidence.model import (
    BRIGHTNESS_ONLY,
    DOUBTFUL,
    SHARE,
    TERMS,
    Colours,
    Confidence,
    check_table_target,
    digest_of,
    table_path,
)
from drcr.correction import Network
from drcr.cube import same_bands
from drcr.data import ValidImages
from drcr.inference import Reconstructor
from drcr.networks import add_network_option
from drcr.utils import cli
from drcr.utils.files import DataError, begins, check_folder_of, plural, refuse_foreign, write_csv

CSV_START = ("images", "table", "name", "scene")
FIT_IMAGES = 60
"""Images that the expected angle is fitted to, at most."""


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--model_dir", type=Path, default=SHIPPED / "model.pth", metavar="FILE", help="checkpoint")
    add("--train_data_path", type=Path, default="./dataset/Train", help="prepared data of the network's training")
    add(
        "--fit_data_path",
        type=Path,
        help="prepared data of the training to fit the expected angle to, such as its real scenes without simulated "
        "ones (default: those of --train_data_path)",
    )
    add(
        "--valid_data_path",
        type=Path,
        nargs="+",
        default=("./dataset/Valid",),
        metavar="FOLDER ...",
        help="prepared data of scenes that the network was not trained on, to calibrate with",
    )
    add(
        "--unseen_model",
        type=Path,
        nargs="+",
        metavar="FILE ...",
        help="checkpoints of a cross-validation, one for each folder of --valid_data_path and then of "
        "--other_data_path, that reconstruct it instead, because --model_dir was trained on its scenes. "
        "--train_data_path is then data that all of them know",
    )
    add(
        "--miss",
        type=cli.positive,
        default=0.1,
        metavar="A",
        help="a, the probability with which the bound may fail for a new scene; 1/(n+1) if that is larger",
    )
    add("--seed", type=cli.at_least(0), default=0, help="seed of all random choices")
    add("--out", type=Path, metavar="FILE", help="table to write (default: beside the checkpoint)")
    add(
        "--evaluate",
        type=Path,
        metavar="FILE",
        help="judge the table, each scene left out of its own calibration, beside a table of brightness alone: print "
        "means, and write the figures of each image as CSV",
    )
    add(
        "--other_data_path",
        type=Path,
        nargs="+",
        metavar="FOLDER ...",
        help="with --evaluate: prepared images, also of other kinds, on which the bound may fail. Those of the "
        "calibration are left aside",
    )
    add_network_option(parser)
    args = parser.parse_args(argv)
    if args.miss >= 1:
        parser.error("--miss must be below 1")
    args.other_data_path = args.other_data_path or ()
    count = len(args.valid_data_path) + len(args.other_data_path)
    args.unseen_model = args.unseen_model or [args.model_dir] * count
    if len(args.unseen_model) != count:
        parser.error(f"--unseen_model must name {plural(count, 'checkpoint')}, one for each folder of images")
    return args


def open_folder(path: Path, model_path: Path, networks: dict[Path, Network]) -> ValidImages:
    """Open prepared data. Raises DataError if it is not for this network."""
    model, folder = networks[model_path], ValidImages(path, drop_rows=0)
    if model.wavelengths is None or not same_bands(folder.wavelengths, model.wavelengths):
        raise DataError(f"{path}: has other wavelengths than the network {model_path}")
    if folder.input_encoding != model.input_encoding:
        raise DataError(
            f"{path}: its images are {folder.input_encoding}, but the network {model_path} was trained on "
            f"{model.input_encoding} ones; prepare them with another --encoding"
        )
    return folder


def evaluate(tables: dict[str, Confidence], groups: dict[str, list[Example]]) -> list[dict[str, Any]]:
    """Judge each table on each image of each group: a row per image."""
    return [
        {"images": group, "table": name, "name": example.name, "scene": example.scene} | judge_example(table, example)
        for group, examples in groups.items()
        for name, table in tables.items()
        for example in examples
    ]


def print_means(rows: Sequence[dict[str, Any]]) -> None:
    """Print the means over the images of each group and table."""
    print(f"\nMeans over images; angles in degrees; AUROC for a true angle above {DOUBTFUL:g}\n")
    names = [name for name in rows[0] if name not in CSV_START]
    print(f"| | scenes within the bound | {' | '.join(name.replace('_', ' ') for name in names)} |")
    print("|---" * (len(names) + 2) + "|")
    for group, table in dict.fromkeys((row["images"], row["table"]) for row in rows):
        own = [row for row in rows if (row["images"], row["table"]) == (group, table)]
        scenes = {row["scene"] for row in own}
        failed = {row["scene"] for row in own if row["within_bound"] < SHARE}
        values = ([row[name] for row in own if np.isfinite(row[name])] for name in names)
        means = " | ".join(f"{np.mean(found or np.nan):.3g}" for found in values)
        print(f"| {group}: {table} | {len(scenes - failed)} of {len(scenes)} | {means} |")


def choose_alike(folder: ValidImages, decodings: Collection[str], count: int, rng: np.random.Generator) -> list[int]:
    """Return up to `count` images of a folder, at random; those decoded in other ways only if there are no others."""
    alike = [i for i, scene in enumerate(folder.scenes) if scene.decoding in decodings]
    return sorted(rng.permutation(alike or len(folder.scenes))[:count].tolist())


def make_table(
    n_terms: int,
    fitted_to: Sequence[Example],
    calibration: Sequence[Example],
    colours: Colours,
    model: Network,
    args: argparse.Namespace,
) -> Confidence:
    """Fit the first `n_terms` of TERMS to images of the training, and calibrate the fit."""
    fitted = fit_angles(fitted_to, np.random.default_rng(args.seed), n_terms)
    decodings = Counter(example.kind for example in calibration)
    return Confidence(
        colours,
        fitted,
        score(fitted, calibration),
        args.miss,
        [float(nm) for nm in model.wavelengths or ()],
        model.input_encoding,
        digest_of(args.model_dir),
        ", ".join(f"{plural(count, 'image')} {how}" for how, count in decodings.items()),
    )


def describe_table(table: Confidence, out: Path) -> str:
    """Return lines on a table: its size, what its bound means, its weights."""
    weights = zip(TERMS, table.fit.weights, strict=True)
    lines = [
        f"{out}: {out.stat().st_size / 1e3:.0f} kB",
        table.statement,
        "weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in weights),
    ]
    if table.miss > table.asked_miss:
        needed = int(np.ceil(1 / table.asked_miss - 1 - 1e-9))
        lines.append(f"a = {table.asked_miss:g} needs {needed} scenes; calibrate on more of them")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, make the table, judge it."""
    args = read_options(argv)
    out = args.out or table_path(args.model_dir)
    networks = {path: load_rgb_model(path, choose_device()) for path in {args.model_dir, *args.unseen_model}}
    check_table_target(out)
    check_folder_of(out)
    if args.evaluate:
        check_folder_of(args.evaluate)
        if args.evaluate.resolve() == out.resolve():
            raise DataError(f"{out}: is both --out and --evaluate; give two different files")
        what = "an evaluation of calibrate_confidence.py"
        refuse_foreign(args.evaluate, lambda path: begins(path, ",".join(CSV_START)), what, "choose another FILE")
    train = open_folder(args.train_data_path, args.model_dir, networks)
    to_fit = train
    if args.fit_data_path is not None:
        to_fit = open_folder(args.fit_data_path, args.model_dir, networks)
    paths, count = [*args.valid_data_path, *args.other_data_path], len(args.valid_data_path)
    folders = [open_folder(path, name, networks) for path, name in zip(paths, args.unseen_model, strict=True)]
    valid, others, unseen = folders[:count], folders[count:], dict(zip(folders, args.unseen_model, strict=True))
    print(f"learning the colours of {plural(len(train.names), 'image')}", flush=True)
    check_unseen([scene for folder in valid for scene in folder.scenes], train)
    rng = np.random.default_rng(args.seed)
    colours = learn_colours(train, rng)

    def read(folder: ValidImages, numbers: Sequence[int]) -> list[Example]:
        path = unseen.get(folder, args.model_dir)
        progress = tqdm(numbers, f"reconstructing {folder.path.name}", unit="image", dynamic_ncols=True, leave=False)
        return read_examples(folder, progress, Reconstructor(networks[path]), path, colours, rng)

    calibration = [example for folder in valid for example in read(folder, range(len(folder)))]
    fitted_to = read(to_fit, choose_alike(to_fit, {x.kind for x in calibration}, FIT_IMAGES, rng))
    tables = {
        name: make_table(n_terms, fitted_to, calibration, colours, networks[args.model_dir], args)
        for name, n_terms in (("all terms", len(TERMS)), ("brightness alone", BRIGHTNESS_ONLY))
    }
    table = tables["all terms"]
    table.save(out)
    print(describe_table(table, out))
    if args.evaluate:
        used = {example.path for example in calibration}
        groups = {"calibration images": calibration}
        for folder in others:
            for example in read(folder, [i for i, x in enumerate(folder.scenes) if x.path.resolve() not in used]):
                groups.setdefault(f"{folder.path.name}, {example.kind}", []).append(example)
        rows = evaluate(tables, groups)
        print_means(rows)
        lines = ([cell if isinstance(cell, str) else f"{cell:.6g}" for cell in row.values()] for row in rows)
        write_csv(args.evaluate, [rows[0].keys(), *lines])


if __name__ == "__main__":
    cli.run(main)
