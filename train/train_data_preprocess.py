"""Prepare the training data: cubes and RGB images become HDF5, from which main.py cuts its patches.

Reads DATA_PATH/Train_spectral/NAME.mat and DATA_PATH/Train_RGB/NAME.jpg (also .png .bmp .tif), paired by name.
A scene whose cube has any value <= 0 is skipped and named, as in the released code: the loss divides by the ground
truth. Data sets with black pixels in every scene (CAVE) need --non_positive floor VALUE instead: here, for the
validation data and in scoring. Cubes may have any bands, the same in all scenes. The cube is stored as it is; the
image is divided by its own largest value when it is read.

Patches are all full windows with their corner at multiples of the stride. They overlap, but no pixel is stored
twice: one file per scene, as large as its cube and image. A run that was interrupted continues where it stopped;
changing --patch_size or --stride later costs nothing.
"""

import drcr.utils.start  # isort: skip # noqa: F401
from collections.abc import Sequence
from pathlib import Path

from drcr.preparation.prepare import add_options, run
from drcr.utils import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and prepare the folder."""
    parser = cli.parser(__doc__)
    add_options(parser, "Train")
    add = parser.add_argument
    add("--patch_size", type=cli.at_least(4), default=128, help="side of a patch in pixels")
    add("--stride", type=cli.at_least(1), default=64, help="pixels from one patch to the next")
    add("--train_data_path", type=Path, default="./dataset/Train", help="folder to write")
    args = parser.parse_args(argv)
    result = run(args, "Train", args.train_data_path, args.patch_size, args.stride)
    print(f"{result.n_patches} patches of {args.patch_size} x {args.patch_size} pixels, stride {args.stride}")


if __name__ == "__main__":
    cli.run(main)
