"""Reconstruct hyperspectral cubes from RGB images with a trained network.

Reads every image of a folder, or one file: JPEG, PNG, BMP, WebP, and with `pip install drcr[photographs]` TIFF, AVIF,
HEIC, camera RAW, and files with EXIF or a colour profile. Decodes photographs to linear light (see --encoding),
divides each image by its largest value, runs the network and writes RESULT_DIR/NAME.mat: MATLAB v7.3, variable
`cube`, H x W x bands, single, unclipped, and the wavelengths as `bands`; with --format, ENVI or TIFF instead.
Replaces reconstructions of an earlier run, never other files. Uses CUDA if there is a GPU, else the CPU. Images may
be of any size: memory is bounded (see --tile). The next image is read and the last one written while one is
reconstructed.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from torch import nn
from tqdm import tqdm

from drcr.checkpoint import MODEL_HELP, fitting_network, load_rgb_model
from drcr.compute.device import choose_device
from drcr.confidence.model import BELIEVABLE, DOUBTFUL, load_confidence
from drcr.correction import Consistency, Correction, Network
from drcr.figures import beside
from drcr.formats.results import FORMATS, check_target, maps_path, write_result
from drcr.images import (
    Encoding,
    ImageFacts,
    add_encoding_option,
    add_inputs,
    all_images,
    encoding_for,
    read_image,
    read_once,
    report_skipped,
)
from drcr.inference import Reconstructor, origin_of, reconstruct_image
from drcr.networks import add_network_option
from drcr.utils import cli
from drcr.utils.files import DataError, plural

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield function(item) of each item; the next one is worked on, in a thread, while one is used."""
    with ThreadPoolExecutor(1) as thread:
        pending: Future | None = None
        for item in items:
            following = thread.submit(function, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def rows_of_a_strip(text: str) -> int | str:
    """Read --tile."""
    if text == "auto":
        return text
    return cli.at_least(4)(text)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.parser(__doc__)
    add_inputs(parser)
    parser.add_argument("--model_dir", type=Path, metavar="FILE", help=MODEL_HELP)
    parser.add_argument("--result_dir", type=Path, default="./test_results", help="folder for the cubes")
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="mat",
        help="mat: NAME.mat, for MATLAB and Python. envi: NAME.hdr and NAME.img, for ENVI, QGIS and SPy. tiff: "
        "NAME.tif, one page per band, labelled with its wavelength, for ImageJ. Values and wavelengths are the same "
        "in each; compute_mrae.py, figures.py, report.py and Dataset/import_cubes.py read all three",
    )
    parser.add_argument(
        "--protocol",
        choices=("padded", "released"),
        default="padded",
        help="released: as the authors' code, which accepts only multiples of 4 and so runs rows [0, H-2) and again "
        "[2, H), twice the work for two rows. padded: the whole image once, padded where the network pools by 4. "
        "Measured with the demo's network on simulated 482 x 512 scenes: the two differ by up to 0.35 in the last "
        "16 rows, by less than 3e-4 above; the MRAE changes by less than 0.1%% of itself",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="fp32: the network's own result, but for rounding. bf16: bfloat16 between the first convolution and the "
        "last, where the processor or the GPU has it. Measured on 24 images of 8 CAVE scenes with the network of "
        "./model: the MRAE of an image changes by less than 0.8%% of itself, the average by 0.02%%",
    )
    parser.add_argument(
        "--tile",
        type=rows_of_a_strip,
        default="auto",
        metavar="auto|ROWS",
        help="the image goes through the network in strips of so many rows, best a multiple of 6, at full width. The "
        "result is the same except for rounding (each layer gets the rows that it needs, averages are over the whole "
        "image), the memory is not. auto: by the free memory. A feature map that fits in none is kept in a file in "
        "RESULT_DIR meanwhile",
    )
    parser.add_argument(
        "--consistency",
        choices=get_args(Consistency),
        help="how far each spectrum is held to the image, by smooth factors until the camera sees the image again. "
        "trained: as far as training found best for a pixel's brightness (default, if the network was trained so; "
        "others: none). half: halfway, in the logarithm. full: entirely, noise included",
    )
    parser.add_argument(
        "--camera",
        help="the camera that took the images: sRGB for photographs whose tags are decoded, else a camera of "
        "colour-science or a CSV file (wavelength, R, G, B). Default: the one stored in the checkpoint",
    )
    parser.add_argument(
        "--gains", type=cli.positive, nargs=3, metavar=("R", "G", "B"), help="analogue gains of --camera"
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="write beside each cube where not to trust it. expected_sam: the spectral angle to expect, in degrees. "
        "sam_factor: times expected_sam it is the bound whose meaning is printed (train/calibrate_confidence.py). "
        f"confidence: 2 believable (up to {BELIEVABLE:g} degrees, no channel clipped), 0 not to be believed (above "
        f"{DOUBTFUL:g}, or a colour that the training data do not have), 1 doubtful. Needs NAME.confidence.npz with "
        "the checkpoint NAME.pth. With --format envi or tiff, the maps are in RESULT_DIR/confidence",
    )
    add_network_option(parser)
    add_encoding_option(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first image that cannot be read, before anything is written. Without it such images are "
        "skipped and listed at the end, with exit status 1",
    )
    beside.add_options(parser)
    args = parser.parse_args(argv)
    if args.images:
        args.RGB_dir = args.images[0] if len(args.images) == 1 else args.images[0].parent
    return args


def check_images(
    args: argparse.Namespace, encoding: Encoding
) -> tuple[dict[Path, ImageFacts], dict[Path, Path], dict[Path, Exception]]:
    """Read all images once; return what is known of each, the checkpoint for each, and why others are skipped."""
    lowest = 6 if args.protocol == "released" else 4
    facts, skipped = read_once(all_images(args), encoding, args.strict, (lowest, 4))
    chosen = {}
    for path, image in facts.items():
        beside.check(args, path, (image.height, image.width))
        target = args.result_dir / f"{path.stem}{FORMATS[args.format]}"
        for file in (target, maps_path(target)) if args.confidence and args.format != "mat" else (target,):
            check_target(file)
        chosen[path] = fitting_network(args.model_dir, image.photograph)
    for network, count in Counter(chosen.values()).items():
        print(f"{plural(count, 'image')} with the network {network}")
    return facts, chosen, skipped


def hold_to_images(args: argparse.Namespace, path: Path, model: Network) -> Correction | None:
    """Return what holds a network's cubes to the images, as the options ask; it may be the network itself."""
    held, consistency = model, args.consistency
    if not isinstance(held, Correction):
        if consistency in (None, "none"):
            return None
        if args.camera is None or consistency == "trained" or model.wavelengths is None:
            raise DataError(
                f"{path}: states no camera, or no wavelengths; give --camera, --consistency half or full, and a "
                "checkpoint with wavelengths"
            )
        held = Correction(nn.Identity(), model.wavelengths)
    if args.camera is not None:
        held.set_camera(args.camera, args.gains)
    held.consistency = consistency or held.consistency
    return held


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and reconstruct."""
    args = read_options(argv)
    cli.hold(args.result_dir)
    device, encoding = choose_device(args.precision), args.encoding
    networks = {}
    if args.model_dir is not None:
        networks[args.model_dir] = load_rgb_model(args.model_dir, device)
        encoding = encoding_for(networks[args.model_dir].input_encoding, encoding, args.model_dir)
    facts, chosen, skipped = check_images(args, encoding)
    args.result_dir.mkdir(parents=True, exist_ok=True)
    for path in set(chosen.values()) - networks.keys():
        networks[path] = load_rgb_model(path, device)
    holding = {path: hold_to_images(args, path, model) for path, model in networks.items()}
    for path, model in networks.items():
        beside.check_network(args, path, model.wavelengths)
    reconstructors = {
        path: Reconstructor(model, args.precision, args.tile, args.result_dir, holding[path])
        for path, model in networks.items()
    }
    tables = {path: load_confidence(path, networks[path]) for path in networks} if args.confidence else {}
    for table in tables.values():
        print(f"confidence: {table.statement}")

    def advance(pixels: float) -> None:
        progress.update(pixels)

    def reconstruct(path: Path, rgb: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        progress.set_postfix_str(path.name)
        network = chosen[path]
        cube = reconstruct_image(reconstructors[network], rgb, path, network, args.protocol, advance)
        return cube, tables[network].variables(rgb, cube) if tables else {}

    def write(path: Path, cube: np.ndarray, maps: dict[str, Any]) -> None:
        network = chosen[path]
        wavelengths = networks[network].wavelengths
        held = holding[network]
        words = [
            origin_of(networks[network], network, args.protocol, args.precision),
            *([held.describe()] if held else []),
        ]
        origin = f"{', '.join(words)}, image {facts[path].how}" + beside.adjust(args, cube, wavelengths, path)
        target = args.result_dir / f"{path.stem}{FORMATS[args.format]}"
        write_result(target, cube, None if wavelengths is None else np.array(wavelengths), origin, **maps)
        beside.write_beside(args, path.stem, cube, wavelengths, maps)

    n_pixels = sum(image.height * image.width for image in facts.values())
    progress = tqdm(desc="reconstructing", total=n_pixels, unit="px", unit_scale=True, dynamic_ncols=True)
    images = one_ahead(lambda path: (path, read_image(path, encoding).normalised()), facts)
    cubes = ((path, *reconstruct(path, rgb)) for path, rgb in images)
    with progress:
        for _ in one_ahead(lambda named: write(*named), cubes):
            pass
    print(f"{plural(len(facts), 'cube')} in {args.result_dir}")
    print(beside.next_command(args))
    report_skipped(skipped)


if __name__ == "__main__":
    cli.run(main)
