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

from drcr.images import add_encoding_option
from drcr.preparation.prepare import prepare, report
from drcr.utils import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and prepare the folder."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--data_path", type=Path, default="../Dataset", help="folder with Train_spectral and Train_RGB"
    )
    parser.add_argument("--patch_size", type=cli.at_least(4), default=128, help="side of a patch in pixels")
    parser.add_argument("--stride", type=cli.at_least(1), default=64, help="pixels from one patch to the next")
    parser.add_argument("--train_data_path", type=Path, default="./dataset/Train", help="folder to write")
    cli.add_rgb_suffix(parser)
    add_encoding_option(parser)
    cli.add_non_positive(parser)
    cli.add_num_workers(
        parser, "processes that prepare scenes in parallel; 0: one scene after the other, in this process"
    )
    args = parser.parse_args(argv)
    cli.hold(args.train_data_path)

    result = prepare(
        args.data_path / "Train_spectral",
        args.data_path / "Train_RGB",
        args.train_data_path,
        args.patch_size,
        args.stride,
        floor=args.floor,
        n_workers=args.num_workers,
        rgb_suffix=args.rgb_suffix,
        encoding=args.encoding,
    )
    report(result, args.train_data_path)
    print(f"{result.n_patches} patches of {args.patch_size} x {args.patch_size} pixels, stride {args.stride}")


if __name__ == "__main__":
    cli.run(main)
