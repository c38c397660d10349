"""Reconstruct hyperspectral cubes from RGB images with a trained network.

Reads every JPEG, PNG, BMP or TIFF (8 or 16 bit) of a folder, or one file, divides each image by its largest
value, runs the network and writes RESULT_DIR/NAME.mat: MATLAB v7.3, variable `cube`, H x W x bands, single,
unclipped, and the wavelengths as `bands`. Reconstructions of an earlier run are replaced, other files never.
On CUDA if there is one, else on the CPU.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import cli
from drcr.checkpoint import load_model
from drcr.device import choose_device
from drcr.files import DataError
from drcr.images import find_images, normalise_rgb, read_rgb
from drcr.matfile import check_target, write_cube
from drcr.reconstruct import reconstruct


def main() -> None:
    """Read the options and reconstruct."""
    parser = cli.parser(__doc__)
    parser.add_argument("--RGB_dir", type=Path, default="../Dataset/Valid_RGB", help="folder of images, or one image")
    parser.add_argument(
        "--model_dir", type=Path, default="./model/model.pth", help="checkpoint, ours or the authors'"
    )
    parser.add_argument("--result_dir", type=Path, default="./test_results", help="folder for the .mat files")
    parser.add_argument(
        "--protocol",
        choices=("padded", "released"),
        default="padded",
        help="released: as the authors' code, which accepts only multiples of 4 and so runs rows [0, H-2) and again "
        "[2, H), twice the work for two rows. padded: the whole image once, padded where the network pools by 4. "
        "Measured with the demo's network on simulated 482 x 512 scenes (benchmarks/protocols.py): the two differ by "
        "up to 0.35 in the last 16 rows, by less than 3e-4 above; the MRAE changes by less than 0.1%% of itself",
    )
    args = parser.parse_args()

    model = load_model(args.model_dir, choose_device())
    paths = find_images(args.RGB_dir)
    # all of them before the first is run: an image that does not decode shows now, not after hours
    lowest = 6 if args.protocol == "released" else 4
    for path in paths:
        height, width = read_rgb(path).shape[:2]
        if height < lowest or width < 4:
            raise DataError(f"{path}: {height} x {width} pixels; at least {lowest} x 4 are needed")
        check_target(args.result_dir / f"{path.stem}.mat")
    if model.architecture["in_channels"] != 3:
        raise DataError(f"{args.model_dir}: takes {model.architecture['in_channels']} channels, not RGB")

    origin = f"DRCR Net, {args.model_dir}, --protocol {args.protocol}"
    args.result_dir.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, desc="reconstructing", unit="image", dynamic_ncols=True):
        try:
            cube = reconstruct(model, normalise_rgb(read_rgb(path)), args.protocol)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise DataError(f"{path}: too large for the memory of this machine; crop it or scale it down") from error
        if not np.isfinite(cube).all():
            raise DataError(f"{args.model_dir}: gives NaN or infinite values for {path}; its training went wrong")
        write_cube(args.result_dir / f"{path.stem}.mat", cube, model.wavelengths, origin)
    print(f"{len(paths)} {'cube' if len(paths) == 1 else 'cubes'} in {args.result_dir}")


if __name__ == "__main__":
    cli.run(main)
