"""Reconstruct cubes without a network: a map from each pixel's RGB to its spectrum, fitted to the training data.

These show what a network adds. Fits on all pixels of the prepared training data by least squares, then writes
RESULT_DIR/NAME.mat for each image of RGB_DIR, as test.py does, for compute_mrae.py to score. Images are read, and
broken ones skipped, as test.py does.

  linear      RGB -> bands, 3 terms
  polynomial  the 22 root-polynomial terms of degree 4, such as (R G)^(1/2) and (R^2 G B)^(1/4), which all grow
              with the exposure as RGB does (Finlayson, Mackiewicz and Hurlbert, IEEE Trans. Image Processing 2015)

The ridge penalty is --ridge times the mean squared value of the terms.
"""

import drcr.utils.start  # isort: skip # noqa: F401
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from drcr.data import ValidImages
from drcr.formats.mat import write_cube
from drcr.formats.results import check_target
from drcr.images import (
    add_encoding_option,
    add_inputs,
    all_images,
    encoding_for,
    read_image,
    read_once,
    report_skipped,
)
from drcr.scoring.baselines import RIDGE, TERMS, fit_map
from drcr.utils import cli
from drcr.utils.files import plural


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, fit, reconstruct."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--method", choices=tuple(TERMS), default="linear", help="terms of the map")
    add("--train_data_path", type=Path, default="../train/dataset/Train", help="prepared training data")
    add_inputs(parser)
    add("--result_dir", type=Path, default="./test_results_baseline", help="folder for the .mat files")
    add("--ridge", type=cli.non_negative, help="ridge penalty (default: 0 for linear, 1e-6 for polynomial)")
    add_encoding_option(parser)
    args = parser.parse_args(argv)
    cli.hold(args.result_dir)
    ridge = RIDGE[args.method] if args.ridge is None else args.ridge
    images = ValidImages(args.train_data_path, drop_rows=0)
    encoding = encoding_for(images.input_encoding, args.encoding, args.train_data_path)
    facts, skipped = read_once(all_images(args), encoding)
    for path in facts:
        check_target(args.result_dir / f"{path.stem}.mat")
    reconstruct = fit_map(images, args.method, ridge)
    origin = f"{args.method} map, ridge {ridge:g}, {args.train_data_path}"
    args.result_dir.mkdir(parents=True, exist_ok=True)
    for path in tqdm(facts, desc="reconstructing", unit="image", dynamic_ncols=True):
        cube = reconstruct(read_image(path, encoding).normalised())
        write_cube(args.result_dir / f"{path.stem}.mat", cube, images.wavelengths, origin)
    n_terms = len(reconstruct.matrix)
    print(
        f"{n_terms} terms, ridge {ridge:g}, {len(images)} scenes; {plural(len(facts), 'cube')} in {args.result_dir}"
    )
    report_skipped(skipped)


if __name__ == "__main__":
    cli.run(main)
