"""Say when the spectra of a network are not to be believed: its scores under changed conditions, beside two maps.

Takes cubes, makes images of them, reconstructs the images, and scores the reconstructions. The reference image is the
one that NTIRE 2022 describes: 6460 photo-electrons at white, a mean of 0.18 of full scale, JPEG of quality 65,
linear; or a photograph (--preset). Each level of a condition (noise, compression, exposure, camera, encoding, optics,
light) differs from it in one thing, and has the same random numbers. The maps per pixel are fitted to
--train_data_path, as baseline.py does. Without --model_dir the network is the one that fits the reference.

Metamers are spectra that the camera cannot tell apart: the part of each spectrum that it does not see is multiplied
by alpha, or taken from training spectra of the nearest colour ("other blacks"). Only pixels whose metamer lies within
0.01 and 1 are scored, and their share is stated ("feasible"). No method can have a lower mean MRAE over both truths
("mrae_of_both") than "any method".

The condition "light" needs cubes that are reflectances, such as simulate.py --illuminants E makes them
(--reflectances_dir). The image is balanced to the lamp, with an error of 4%, and the reflectance is scored; of levels
"LAMP, radiance", where the lamp is named as with test.py --light, the light that comes from the scene.

Writes into RESULT_DIR:
  stress.csv    scene, condition, level, seed, method, metric, value
  summary.csv   means over scenes, their ratio to the reference, and 95% intervals (paired bootstrap over scenes)
  overview      the ratios of the network as a figure, PNG and PDF

If the network has a table of train/calibrate_confidence.py, the map of test.py --confidence is judged, too. A scene
that the table was calibrated on is left out of the calibration for its own images.

The same command gives the same files, byte for byte. Scores are those of compute_mrae.py: reconstructions are clipped
to [0, 1], dark values of the cubes are raised by --non_positive floor VALUE.

  python stress_test.py --path_gt ../Dataset/Valid_spectral --non_positive floor 0.01
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.camera import Camera
from drcr.checkpoint import MODEL_HELP, fitting_network, load_rgb_model
from drcr.confidence.model import load_confidence, table_path
from drcr.cube import describe_bands, describe_floor, same_bands
from drcr.data import ValidImages
from drcr.networks import add_network_option, title_of
from drcr.preparation.render import DEFAULT_CAMERA
from drcr.scoring.baselines import RIDGE, fit_map
from drcr.stress.conditions import REFERENCES, camera_views
from drcr.stress.study import (
    Measured,
    Method,
    Network,
    Place,
    Scene,
    Shot,
    Study,
    collect,
    measure,
    plan_shots,
    read_true_scene,
    sample_spectra,
    summarise,
)
from drcr.stress.tables import check_folder, worst_levels, write_results
from drcr.utils import cli
from drcr.utils.files import DataError, list_files, plural
from drcr.utils.parallel import in_order

MAPS = {"polynomial": "root-polynomial", "linear": "linear"}


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--path_gt", type=Path, default="../Dataset/Valid_spectral", help="folder of cubes (.mat)")
    add("--reflectances_dir", type=Path, help="folder of cubes that are reflectances, for the condition light")
    add(
        "--preset",
        choices=tuple(REFERENCES),
        default="real-world",
        help="the reference. real-world: linear images as NTIRE 2022 describes its own. photograph: the same "
        "exposure and noise, white balance, a colour matrix and the curve of sRGB, JPEG of quality 90; decoded "
        "before it is reconstructed",
    )
    add("--model_dir", type=Path, metavar="FILE", help=MODEL_HELP)
    add("--train_data_path", type=Path, default="../train/dataset/Train", help="prepared training data, for the maps")
    add("--camera", default=DEFAULT_CAMERA, help="camera of colour-science, or a CSV file (wavelength, R, G, B)")
    text = "cameras that the network was not trained with: CSV files, or folders of them (default: none)"
    add("--other_cameras", nargs="+", default=(), metavar="FILE|FOLDER ...", help=text)
    add("--result_dir", type=Path, default="./stress", help="folder for the results")
    cli.add_non_positive(parser, skip="a cube with any value <= 0 is an error")
    cli.add_num_workers(parser, "images worked on at the same time, each in its own process; 0: one after another")
    add_network_option(parser)
    return parser.parse_args(argv)


def read_cameras(sources: Sequence[str]) -> dict[str, Camera]:
    """Return the cameras of --other_cameras by name."""
    cameras = {}
    for source in sources:
        if Path(source).is_dir():
            files = list_files(source, (".csv",), "cameras").values()
            cameras |= {path.stem: Camera(path) for path in files}
        else:
            cameras[Path(source).stem if source.lower().endswith(".csv") else source] = Camera(source)
    return cameras


def read_scenes(folder: Path, floor: float | None) -> tuple[list[Scene], np.ndarray, str]:
    """Return a folder's scenes, their wavelengths, and a sentence on raised values.

    Raises DataError if a cube cannot be used, or has other bands than the first.
    """
    scenes, raised, n_values, wavelengths = [], [], 0, None
    for name, path in list_files(folder, (".mat",), "cubes").items():
        scenes.append(Scene(name, path, floor))
        cube, count = read_true_scene(scenes[-1])
        if cube.values.max() > 1:
            raise DataError(f"{path}: values up to {cube.values.max():g}; radiance from 0 to 1 is needed")
        own = cube.require_wavelengths()
        wavelengths = own if wavelengths is None else wavelengths
        if not same_bands(own, wavelengths):
            raise DataError(f"{path}: {describe_bands(own)}, but the first cube has {describe_bands(wavelengths)}")
        raised.append(count)
        n_values += cube.values.size
    assert wavelengths is not None  # list_files returns at least one
    return scenes, wavelengths, "" if floor is None else describe_floor(floor, raised, n_values)


def network_of(args: argparse.Namespace) -> Path:
    """Return the checkpoint: --model_dir, or the one that fits the reference images."""
    return fitting_network(args.model_dir, args.preset == "photograph")


def load_methods(args: argparse.Namespace, data: ValidImages, wavelengths: np.ndarray) -> dict[str, Method]:
    """Return the network and the fitted maps by name. Raises DataError if they are not for these cubes."""
    path = network_of(args)
    model = load_rgb_model(path)
    for name, bands in ((path, model.wavelengths), (data.path, data.wavelengths)):
        if bands is not None and not same_bands(bands, wavelengths):
            raise DataError(f"{name}: {describe_bands(bands)}, but the cubes have {describe_bands(wavelengths)}")
    if model.input_encoding == "stored" or data.input_encoding == "stored":
        raise DataError(f"{path}, {data.path}: one is for encoded images; those made here are linear")
    if model.architecture["out_channels"] != len(wavelengths):
        raise DataError(f"{path}: returns {model.architecture['out_channels']} bands, but the cubes have others")
    maps = {MAPS[name]: fit_map(data, name, RIDGE[name]) for name in MAPS}
    return {title_of(model.architecture): Network(path.resolve())} | maps


def with_table(args: argparse.Namespace) -> Path | None:
    """Return the checkpoint if it has a table for the confidence map. Raises DataError if that table is damaged."""
    path = network_of(args).resolve()
    if not table_path(path).exists():
        return None
    load_confidence(path, load_rgb_model(path))
    return path


def measure_all(shots: dict[Place, Shot], done: Iterable[Measured]) -> dict[Place, Measured]:
    """Return what the shots found, as it comes; a run that is stopped says where."""
    measured: dict[Place, Measured] = {}
    progress = tqdm(done, "reconstructing", len(shots), unit="image", dynamic_ncols=True)
    try:
        for (place, shot), found in zip(shots.items(), progress, strict=True):
            progress.set_postfix_str(shot.scene.name)
            measured[place] = found
    except (KeyboardInterrupt, SystemExit):
        scene = list(shots.values())[min(len(measured), len(shots) - 1)].scene.name
        print(
            f"\nstopped at image {len(measured) + 1} of {len(shots)}, scene {scene}; tables and figure are written "
            "after the last one",
            file=sys.stderr,
        )
        raise
    return measured


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, take and score the images, write tables and the figure."""
    args = read_options(argv)
    cli.hold(args.result_dir)
    check_folder(args.result_dir)
    scenes, wavelengths, raised = read_scenes(args.path_gt, args.floor)
    lit = []
    if args.reflectances_dir is not None:
        lit, others, _ = read_scenes(args.reflectances_dir, args.floor)
        if not same_bands(others, wavelengths):
            raise DataError(f"{args.reflectances_dir}: other bands than {args.path_gt}")
    views = camera_views(Camera(args.camera), read_cameras(args.other_cameras))
    for view in views.values():
        view.curves(wavelengths)  # a camera that sees nothing shows before the work
    data = ValidImages(args.train_data_path, drop_rows=0)
    methods = load_methods(args, data, wavelengths)
    study = Study(methods, views, REFERENCES[args.preset], sample_spectra(data), with_table(args))
    shots, planned = plan_shots(scenes, lit, study)
    done = in_order(measure, shots.values(), min(args.num_workers, len(shots)))
    rows = collect(measure_all(shots, done), planned)
    table = summarise(rows)
    write_results(args.result_dir, rows, table)
    print(
        f"\n{plural(len(scenes), 'scene')} of {args.path_gt}, {plural(len(shots), 'image')}, --preset "
        f"{args.preset}. Network: {network_of(args)}. Maps fitted to {args.train_data_path}. Camera: {args.camera}."
    )
    if raised:
        print(f"{raised.capitalize()}.")
    print("Light: " + (f"{plural(len(lit), 'scene')} of {args.reflectances_dir}." if lit else "skipped."))
    if study.confidence is None:
        print("Confidence map: skipped; train/calibrate_confidence.py makes the table that it needs.")
    print("\n".join(["", *worst_levels(table, next(iter(methods))), f"\n{args.result_dir / 'summary.csv'}"]))


if __name__ == "__main__":
    cli.run(main)
