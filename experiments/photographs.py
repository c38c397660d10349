"""Train and score DRCR Net on photographs: CAVE at half size, seen by 26 measured cameras, beside two baselines.

Of the 24 scenes of Dataset/cave_split_24.txt, 14 train, 2 are watched in training, and 8 are held out: they choose
nothing and are scored once. Of the cameras in
--cameras, 20 train and 6 are held out.

Training data: of each real scene 6 photographs (--preset photograph) by training cameras and 3 linear images
(--preset real-world), and as many simulated scenes as SIMULATED says, with reflectances of luxpy under light of equal
energy. Dark values are raised to 0.01. The network is trained on all of them with the absolute error, then on the
real scenes alone with the released loss (MRAE): simulated scenes teach spectra, but are brighter than real ones, and
under the absolute error the brightness of a scene, which its image does not tell, is guessed too high for dark
scenes.

Scored are, by the plain commands without any option: 2 photographs of each held-out scene by held-out cameras, and
its linear image as NTIRE 2022 describes it. "Best scale" is the MRAE after each reconstruction is multiplied by the
one number that makes its MRAE lowest: an exposed image does not tell how bright its scene was.

OUT holds the data, the run, the cubes, RESULTS.md and photograph.png. What an interrupted run has finished is kept.
The scored network is last.pth: no checkpoint is chosen.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.camera import Camera
from drcr.cube import raise_to_floor
from drcr.figures.scenes import plot_curves, plot_reconstruction
from drcr.formats.mat import read_cube, write_cube
from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.metrics import best_scale_mrae
from drcr.preparation.photograph import Cameras
from drcr.preparation.render import scene_rng
from drcr.scoring.scoring import median_scene, read_scores
from drcr.stress.metamers import metamer
from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import DataError, list_files, write_atomically

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
SIMULATED = {"photographs": (600, 11), "linear": (300, 6)}
"""Number of simulated scenes, and their seed."""
TRAINING = "--batchSize 2 --end_epoch 1000 --recipe flip --precision bf16 --resume auto"
FIRST = "--channels 32 --n_blocks 3 --init_lr 1e-3 --loss l1"
SECOND = "--init_lr 3e-4 --loss mrae"
SCORES = ("mrae", "rmse", "sam")
NEW_TO_BOTH = HELD_OUT[:6]  # the network before was trained on the others
PHOTOGRAPH_ENDINGS = ("_p101", "_p102")
KINDS = {
    "photographs by held-out cameras": (PHOTOGRAPH_ENDINGS, HELD_OUT),
    "photographs by held-out cameras, scenes new to both networks": (PHOTOGRAPH_ENDINGS, NEW_TO_BOTH),
    "linear images (real-world)": (("_l0",), HELD_OUT),
    "linear images (real-world), scenes new to both networks": (("_l0",), NEW_TO_BOTH),
}
"""Tables: how the names of the held-out images end, and their scenes."""
NETWORKS = ("network", "before")
METHODS = {
    "network": "DRCR Net, this network",
    "before": "DRCR Net, the one before",
    "polynomial": "root-polynomial, degree 4",
    "linear": "linear, least squares",
}


def split_cameras(source: Path, out: Path) -> None:
    """Link the cameras into OUT/cameras/train and OUT/cameras/held_out."""
    for name, path in list_files(source, (".csv",), "cameras").items():
        link(path, out / "cameras" / ("held_out" if name in HELD_OUT_CAMERAS else "train") / path.name)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, where it is not there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.resolve())


def gather(cubes: Path, images: Path, out: Path, part: str, suffix: str) -> None:
    """Link pairs of a cube and an image as OUT/PART_spectral/NAME_SUFFIX and OUT/PART_RGB/NAME_SUFFIX."""
    for path in sorted(images.iterdir()):
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


def make_images(out: Path, challenge: Path, reflectances: str) -> None:
    """Render the images of all scenes, and gather training, watched and held-out pairs."""
    scenes, images = out / "scenes", out / "images"
    train_cameras = f"--preset photograph --light E --camera {out}/cameras/train"
    for part, photographs in (("Train", PHOTOGRAPHS), ("Valid", 1)):
        cubes = scenes / f"{part}_spectral"
        kinds = {f"p{seed}": f"{train_cameras} --seed {seed}" for seed in range(1, photographs + 1)}
        kinds["l1"] = f"--camera {challenge} --gains 2.2933984 1 1.62308182"
        if part == "Train":
            kinds["l2"] = f"--camera {out}/cameras/train"
        for kind, options in kinds.items():
            render(cubes, images / part / kind, options)
            gather(cubes, images / part / kind, out / "data", part, kind)
        gather(cubes, scenes / f"{part}_RGB", out / "data", part, "l0")
    library = "--reflectances luxpy" if reflectances == "luxpy" else ""
    for kind, (count, seed) in SIMULATED.items():
        options = train_cameras if kind == "photographs" else ""
        folder = out / "simulated" / kind
        step(
            ROOT / "Dataset",
            f"simulate.py --out {folder} --n_train {count} --n_valid 0 --size 128 128 --radii 8 96 --illuminants E "
            f"--seed {seed} {library} {options} --keep",
        )
        gather(folder / "Train_spectral", folder / "Train_RGB", out / "data", "Train", kind)
    cubes = out / "held_out/Valid_spectral"
    for seed in (101, 102):
        folder = images / "held_out" / f"p{seed}"
        render(cubes, folder, f"--preset photograph --light E --camera {out}/cameras/held_out --seed {seed}")
        gather(cubes, folder, out / "test", "Valid", f"p{seed}")
    gather(cubes, out / "held_out/Valid_RGB", out / "test", "Valid", "l0")


def cameras_of(out: Path, challenge: Path) -> dict[str, Callable[[str], Camera]]:
    """Return by the ending of a training image's name which camera took the image of a scene.

    Simulated photographs are missing: their scenes are drawn with the same random numbers before the camera is.
    """
    every = [Camera(path, (1, 1, 1)) for path in list_files(out / "cameras/train", (".csv",), "cameras").values()]

    def drawn(seed: int) -> Callable[[str], Camera]:
        return lambda scene: Cameras(every).draw(scene_rng(seed, scene))

    cameras = {f"p{seed}": drawn(seed) for seed in range(1, PHOTOGRAPHS + 1)}
    usual = Camera()
    return cameras | {
        "l2": drawn(0),
        "l0": lambda _: usual,
        "linear": lambda _: usual,
        "l1": lambda _: Camera(challenge),
    }


def add_metamers(out: Path, challenge: Path) -> None:
    """Pair each training image with a second cube, a metamer of its own under the image's camera.

    The black is multiplied by alpha, drawn from -1 to 2 for each image; pixels where values would leave the range
    from 0 to the cube's largest keep their spectrum.
    """
    cameras = cameras_of(out, challenge)
    shares = []
    for path in tqdm(sorted((out / "data/Train_spectral").iterdir()), desc="metamers", unit="cube"):
        scene, kind = path.stem.rsplit("_", 1)
        target = path.with_name(f"{path.stem}_m.mat")
        if kind not in cameras or target.exists():
            continue
        alpha = scene_rng(0, path.stem).uniform(-1, 2)
        cube = read_cube(path)
        other, feasible = metamer(cube, cameras[kind](scene).curves(), alpha, 0, float(cube.max()))
        shares.append(feasible.mean())
        write_cube(target, other.astype(np.float32))
        (image,) = (out / "data/Train_RGB").glob(f"{path.stem}.*")
        link(image, image.with_name(f"{path.stem}_m{image.suffix}"))
    if shares:
        print(f"metamers for {np.mean(shares):.0%} of the pixels")


def train(out: Path, iterations: tuple[int, int], init: Path | None) -> None:
    """Prepare the data and train: first on all scenes, then on the real ones alone."""
    dark, prepared = f"--non_positive floor {FLOOR}", out / "prepared"
    for path in sorted((out / "data").glob("Train_*/*")):
        if not path.stem.removesuffix("_m").endswith(tuple(SIMULATED)):
            link(path, out / "real" / path.parent.name / path.name)
    for data, name in (("data", "Train"), ("real", "Real")):
        step(
            ROOT / "train",
            f"train_data_preprocess.py --data_path {out / data} --patch_size 128 --stride 64 {dark} "
            f"--train_data_path {prepared / name}",
        )
    step(ROOT / "train", f"valid_data_preprocess.py --data_path {out}/data {dark} --valid_data_path {prepared}/Valid")
    first = FIRST if init is None else f"{FIRST} --init {init}"
    stages = (("Train", first, out / "first"), ("Real", f"{SECOND} --init {out}/first/last.pth", out / "run"))
    for (name, options, folder), count in zip(stages, iterations, strict=True):
        step(
            ROOT / "train",
            f"main.py {options} {TRAINING} --max_iter {count} --train_data_path {prepared / name} "
            f"--valid_data_path {prepared}/Valid --outf {folder}",
        )


def score(out: Path, before: Path | None) -> str:
    """Reconstruct and score the held-out images; return the tables."""
    folder = out / "test"
    images, truth = folder / "Valid_RGB", folder / "Valid_spectral"
    networks = {"network": out / "run/last.pth"} | ({"before": before.resolve()} if before else {})
    methods = {method: name for method, name in METHODS.items() if method in networks or method not in NETWORKS}
    tables, scaled = {}, {}
    for method in methods:
        if method in networks:
            command = f"test.py --model_dir {networks[method]}"
        else:
            command = f"baseline.py --method {method} --train_data_path {out}/prepared/Train"
        if not (folder / f"{method}.csv").exists():
            step(ROOT / "test", f"{command} --RGB_dir {images} --result_dir {folder / method}")
            step(
                ROOT / "test",
                f"compute_mrae.py --path_rec {folder / method} --path_gt {truth} --non_positive floor {FLOOR} "
                f"--csv {folder}/{method}.csv",
            )
        tables[method] = read_scores(folder / f"{method}.csv")
        scaled[method] = {
            path.stem: best_scale_mrae(
                read_cube(folder / method / path.name).clip(0, 1), raise_to_floor(read_cube(path), FLOOR)[0]
            )
            for path in sorted(truth.iterdir())
        }
    lines = []
    for kind, (endings, scenes) in KINDS.items():
        names = [scene + ending for scene in scenes for ending in endings]
        lines += [f"{kind}: mean over {len(names)} images of {len(scenes)} scenes", ""]
        lines += ["| | MRAE | at best scale | RMSE | SAM deg |", "|---|---|---|---|---|"]
        for method, name in methods.items():
            mrae, rmse, sam = (np.mean([tables[method][scene][score] for scene in names]) for score in SCORES)
            best = np.mean([scaled[method][scene] for scene in names])
            lines.append(f"| {name} | {mrae:.4f} | {best:.4f} | {rmse:.4f} | {sam:.2f} |")
        lines.append("")
    return "\n".join(lines)


def draw(out: Path) -> None:
    """Draw the held-out photograph of median MRAE: bands, errors, spectra beside the truth."""
    folder = out / "test"
    scores = read_scores(folder / "network.csv")
    name = median_scene({name: row for name, row in scores.items() if name.endswith(PHOTOGRAPH_ENDINGS)})
    truth, _ = raise_to_floor(read_cube(folder / f"Valid_spectral/{name}.mat"), FLOOR)
    photograph = read_rgb(list_files(folder / "Valid_RGB", IMAGE_SUFFIXES, "RGB images")[name])
    methods = [method for method in METHODS if method != "before"]
    recs = {METHODS[method]: read_cube(folder / method / f"{name}.mat") for method in methods}
    plot_reconstruction(out / "photograph.png", np.float32(photograph) / 255, truth, recs)
    plot_curves(out / "curves.png", out / "run/loss.csv")


def main(argv: Sequence[str] | None = None) -> None:
    """Make the images, train, score."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of the CAVE data base")
    add("--cameras", type=Path, required=True, help="folder of the 26 cameras' CSV files")
    add(
        "--challenge_camera", type=Path, required=True, help="RGB_Camera_QE.csv, the camera that NTIRE 2022 published"
    )
    add("--out", type=Path, default="../photographs", help="folder for data, run and results")
    add("--iterations", type=cli.at_least(1), nargs=2, default=(3600, 800), help="iterations of both trainings")
    add(
        "--reflectances",
        choices=("luxpy", "measured"),
        default="luxpy",
        help="those of the simulated scenes: luxpy's 119,000, or simulate.py's own 123",
    )
    add("--init", type=Path, metavar="FILE", help="start from this network instead of random weights")
    add(
        "--metamers",
        action="store_true",
        help="add each image but simulated photographs a second time, with a metamer of its cube",
    )
    add("--before", type=Path, metavar="FILE", help="another network to score beside this one")
    add(
        "--stages",
        nargs="+",
        choices=("images", "train", "score"),
        default=("images", "train", "score"),
        help="what to run",
    )
    args = parser.parse_args(argv)

    out = args.out.resolve()
    if shlex.quote(str(out)) != str(out):
        raise DataError(f"{out}: choose an --out without spaces and special characters")
    out.mkdir(parents=True, exist_ok=True)
    if "images" in args.stages:
        split_cameras(args.cameras, out)
        import_scenes(args.source.resolve(), out)
        make_images(out, args.challenge_camera.resolve(), args.reflectances)
    if "train" in args.stages:
        if args.metamers:
            add_metamers(out, args.challenge_camera.resolve())
        train(out, tuple(args.iterations), args.init and args.init.resolve())
    if "score" in args.stages:
        table = score(out, args.before)
        write_atomically(out / "RESULTS.md", lambda file: file.write(table.encode()))
        draw(out)
        print(f"\n{table}\n{os.path.relpath(out / 'RESULTS.md')}")


if __name__ == "__main__":
    cli.run(main)
