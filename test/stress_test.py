"""Say when the spectra of a network are not to be believed: its scores under changed conditions, beside two maps.

Takes cubes, makes images of them, reconstructs the images, and scores the reconstructions. The reference image is the
one that NTIRE 2022 describes: 6460 photo-electrons at white, a mean of 0.18 of full scale, JPEG of quality 65,
linear; or a photograph (--preset). Each level of a condition (noise, compression, exposure, camera, encoding, optics,
light) differs from it in one thing, and has the same random numbers. The maps per pixel are fitted to
--train_data_path, as baseline.py does. Without --model_dir the network is the one that fits the reference.

Metamers are spectra that the camera cannot tell apart. With alpha, the part of each spectrum that the camera does not
see is multiplied by alpha. "Other blacks" takes that part from training spectra of the nearest colour. The image is
the same. Nothing is clipped: only pixels whose metamer lies within --range are scored, and their share is stated. No
method can have a lower mean MRAE over both truths than the floor that is printed beside it.

The condition "light" needs cubes that are reflectances, such as simulate.py --illuminants E makes them:
--reflectances_dir.

Writes into OUT:
  trust.csv     scene, condition, level, seed, method, metric, value
  summary.csv   means over scenes, their ratio to the reference, and 95% intervals (paired bootstrap over scenes)
  tables.md     the main numbers as tables
  index.html    the page, with its figures; they are there as PNG and PDF, too

If the network has a table of train/calibrate_confidence.py, the map of test.py --confidence is judged, too, beside
darkness alone as a map. A scene that the table was calibrated on is left out of the calibration for its own images.

The same command gives the same files, byte for byte. Scores are those of compute_mrae.py: reconstructions are clipped
to [0, 1], dark values of the cubes are raised by --non_positive floor VALUE.

  python stress_test.py --spectral_dir ../Dataset/Valid_spectral --non_positive floor 0.01
"""

import signal

if __name__ == "__main__":  # Ctrl-C during the imports, which take seconds, ends without a trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr.camera import Camera
from drcr.checkpoint import MODEL_HELP, fitting_network, load_rgb_model
from drcr.confidence.model import load_confidence, table_path
from drcr.cube import describe_bands, describe_floor, same_bands
from drcr.data import ValidImages
from drcr.light import lamp
from drcr.preparation.render import DEFAULT_CAMERA
from drcr.scoring.baselines import RIDGE, fit
from drcr.stress.conditions import REFERENCES, Plan, camera_views
from drcr.stress.page import check_folder, write_results
from drcr.stress.study import (
    Method,
    Network,
    Scene,
    Study,
    collect,
    group_spectra,
    measure,
    plan_jobs,
    read_scene,
    sample_spectra,
    summarise,
)
from drcr.utils import cli
from drcr.utils.files import DataError, list_files, plural
from drcr.utils.parallel import in_order

MAPS = {"polynomial": "root-polynomial", "linear": "linear"}


def add_level_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the levels of the conditions."""
    plan = Plan()
    group = parser.add_argument_group("levels of the conditions; the reference is added where it is not named")
    add = group.add_argument
    text = "photo-electrons at white; 0: no noise"
    add("--electrons", type=cli.non_negative, nargs="+", default=plan.electrons, metavar="N ...", help=text)
    text = "qualities of the JPEG; 0: PNG"
    add("--qualities", type=cli.at_least(0), nargs="+", default=plan.qualities, metavar="N ...", help=text)
    text = "exposures: the mean of the image as a part of full scale, below 1"
    add("--exposures", type=cli.positive, nargs="+", default=plan.exposures, metavar="MEAN ...", help=text)
    text = "f(k x) is compared with k f(x), where x is the reference image divided by its largest value"
    add("--factors", type=cli.positive, nargs="+", default=plan.factors, metavar="K ...", help=text)
    text = "the camera's curves are moved by so many nm"
    add("--shifts", type=float, nargs="+", default=plan.shifts, metavar="NM ...", help=text)
    text = "the gain of R or B is off by so many percent"
    add("--gain_errors", type=float, nargs="+", default=plan.gain_errors, metavar="PERCENT ...", help=text)
    text = "sigma of the lens in pixels; the truth is blurred, too, since spectra are judged and not sharpness"
    add("--blurs", type=cli.positive, nargs="+", default=plan.blurs, metavar="SIGMA ...", help=text)
    text = "factors of the image's size; the truth is resized with it"
    add("--sizes", type=cli.positive, nargs="+", default=plan.sizes, metavar="FACTOR ...", help=text)
    text = "CIE illuminants of colour-science, F2, F11 or 'white LED' (LED-B3); images are not white-balanced to them"
    add("--lights", nargs="+", default=plan.lights, metavar="NAME ...", help=text)
    text = "factors of the part that the camera does not see; 1: the cube itself"
    add("--alphas", type=float, nargs="+", default=plan.alphas, metavar="ALPHA ...", help=text)
    text = "seeds of noise for the reference and the levels of photo-electrons; other levels have the first one"
    add("--seeds", type=cli.at_least(1), default=plan.seeds, help=text)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--spectral_dir", type=Path, default="../Dataset/Valid_spectral", help="folder of cubes (.mat)")
    add("--scenes", nargs="+", default=(), metavar="NAME ...", help="only these of its scenes, named without suffix")
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
    text = "analogue gains of the camera; without them, light of equal energy is neutral"
    add("--gains", type=cli.positive, nargs=3, metavar=("R", "G", "B"), help=text)
    text = "cameras that the network was not trained with: CSV files, or folders of them (default: none)"
    add("--other_cameras", nargs="+", default=(), metavar="FILE|FOLDER ...", help=text)
    add("--out", type=Path, default="./trust", help="folder for the results")
    text = "values that are physically possible, for metamers"
    add("--range", type=cli.positive, nargs=2, default=(0.01, 1.0), metavar=("LOW", "HIGH"), help=text)
    cli.add_non_positive(parser, skip="a cube with any value <= 0 is an error")
    cli.add_num_workers(parser, "images worked on at the same time, each in its own process; 0: one after another")
    add_level_options(parser)
    args = parser.parse_args(argv)
    if max(args.exposures) >= 1 or max(args.qualities) > 100 or not args.range[0] < args.range[1]:
        parser.error("--exposures below 1, --qualities of 100 at most, --range LOW below HIGH are needed")
    if any(not 0 < 100 + error < 200 for error in args.gain_errors) or max(*args.sizes, *args.blurs) > 16:
        parser.error("--gain_errors between -100 and 100, --sizes and --blurs of 16 at most are needed")
    if any(0 < electrons < 1 or electrons > 1e9 for electrons in args.electrons):
        parser.error("--electrons 0 or from 1 to 1e9 are needed")
    for light in args.lights:
        lamp(light)  # an unknown one shows before the work
    return args


def read_plan(args: argparse.Namespace) -> Plan:
    """Return the levels of the options; those of the reference are always among them."""

    def with_reference(values: Sequence, value: object) -> tuple:
        return tuple(dict.fromkeys(values if value in values else (value, *values)))

    reference = REFERENCES[args.preset]
    return Plan(
        electrons=with_reference(args.electrons, reference.electrons),
        qualities=with_reference(args.qualities, reference.quality),
        exposures=with_reference(args.exposures, reference.mean),
        shifts=args.shifts,
        gain_errors=args.gain_errors,
        blurs=tuple(dict.fromkeys(args.blurs)),
        sizes=tuple(dict.fromkeys(args.sizes)),
        lights=with_reference(args.lights, "E"),
        alphas=with_reference(args.alphas, 1),
        factors=tuple(dict.fromkeys(args.factors)),
        seeds=args.seeds,
    )


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


def read_scenes(
    folder: Path, floor: float | None, wanted: Sequence[str] = ()
) -> tuple[list[Scene], dict[str, np.ndarray], np.ndarray, list[int]]:
    """Return a folder's scenes, or the `wanted` ones, their cubes by name, wavelengths, and raised values of each.

    Raises
    ------
    DataError
        A scene is missing, a cube cannot be used, or has other bands than the first.
    """
    scenes, cubes, raised, wavelengths = [], {}, [], None
    files = list_files(folder, (".mat",), "cubes")
    for name in wanted:
        if name not in files:
            raise DataError(f"{folder}: contains no {name}.mat, which --scenes names")
    for name in wanted or files:
        path = files[name]
        cube, count = read_scene(Scene(name, path, floor))
        if cube.values.max() > 1:
            raise DataError(f"{path}: values up to {cube.values.max():g}; radiance from 0 to 1 is needed")
        own = cube.require_wavelengths()
        wavelengths = own if wavelengths is None else wavelengths
        if not same_bands(own, wavelengths):
            raise DataError(f"{path}: {describe_bands(own)}, but the first cube has {describe_bands(wavelengths)}")
        scenes.append(Scene(name, path, floor))
        cubes[name] = cube.values
        raised.append(count)
    assert wavelengths is not None  # list_files returns at least one
    return scenes, cubes, wavelengths, raised


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
    return {"DRCR Net": Network(path.resolve())} | {MAPS[name]: fit(data, name, RIDGE[name]) for name in MAPS}


def with_table(args: argparse.Namespace) -> Path | None:
    """Return the checkpoint if it has a table for the confidence map. Raises DataError if that table is damaged."""
    path = network_of(args).resolve()
    if not table_path(path).exists():
        return None
    load_confidence(path, load_rgb_model(path))
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, take and score the images, write tables, figures and the page."""
    args = read_options(argv)
    cli.hold(args.out)
    check_folder(args.out)
    scenes, cubes, wavelengths, raised = read_scenes(args.spectral_dir, args.floor, args.scenes)
    lit, lit_cubes = [], {}
    if args.reflectances_dir is not None:
        lit, lit_cubes, others, _ = read_scenes(args.reflectances_dir, args.floor)
        if not same_bands(others, wavelengths):
            raise DataError(f"{args.reflectances_dir}: other bands than {args.spectral_dir}")
    views = camera_views(
        Camera(args.camera, args.gains), read_cameras(args.other_cameras), args.shifts, args.gain_errors
    )
    for view in views.values():
        view.curves(wavelengths)  # a camera that sees nothing shows before the work
    data = ValidImages(args.train_data_path, drop_rows=0)
    methods = load_methods(args, data, wavelengths)
    study = Study(
        methods,
        views,
        read_plan(args),
        REFERENCES[args.preset],
        *(float(np.float32(value)) for value in args.range),  # as the cubes have them
        centres=group_spectra([*cubes.values(), *lit_cubes.values()]),
        spectra=sample_spectra(data),
        confidence=with_table(args),
    )
    jobs, levels = plan_jobs(scenes, lit, study)
    done = in_order(measure, jobs.values(), min(args.num_workers, len(jobs)))
    progress = tqdm(done, "reconstructing", len(jobs), unit="image", dynamic_ncols=True)
    rows = collect(dict(zip(jobs, progress, strict=True)), levels)
    notes = [
        f"{plural(len(scenes), 'scene')} of {args.spectral_dir}, {plural(len(jobs), 'image')}, --preset "
        f"{args.preset}. Network: {network_of(args)}. Maps fitted to {args.train_data_path}. Camera: {args.camera}.",
        "Light: " + (f"{plural(len(lit), 'scene')} of {args.reflectances_dir}." if lit else "skipped."),
    ]
    if study.confidence is None:
        notes.append("Confidence map: skipped; train/calibrate_confidence.py makes the table that it needs.")
    if args.floor is not None:
        n_values = sum(cube.size for cube in cubes.values())
        notes.append(describe_floor(args.floor, raised, n_values).capitalize() + ".")
    command = shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])
    write_results(args.out, rows, summarise(rows), study, cubes, wavelengths, notes, command)
    print(f"\n{notes[0]}\n{notes[1]}\n{args.out / 'index.html'}")


if __name__ == "__main__":
    cli.run(main)
