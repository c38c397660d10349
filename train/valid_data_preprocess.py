"""Prepare the validation data: cubes and RGB images become HDF5, which main.py reads whole.

Reads DATA_PATH/Valid_spectral/NAME.mat and DATA_PATH/Valid_RGB/NAME.jpg (also .png .bmp .tif), paired by name.
A scene whose cube has any value <= 0 is skipped and named, as in the released code; --non_positive floor VALUE
keeps it, as for the training data. A run that was interrupted continues where it stopped.
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
        "--data_path", type=Path, default="../Dataset", help="folder with Valid_spectral and Valid_RGB"
    )
    parser.add_argument("--valid_data_path", type=Path, default="./dataset/Valid", help="folder to write")
    cli.add_rgb_suffix(parser)
    add_encoding_option(parser)
    cli.add_non_positive(parser)
    cli.add_num_workers(
        parser, "processes that prepare scenes in parallel; 0: one scene after the other, in this process"
    )
    args = parser.parse_args(argv)
    cli.hold(args.valid_data_path)

    result = prepare(
        args.data_path / "Valid_spectral",
        args.data_path / "Valid_RGB",
        args.valid_data_path,
        floor=args.floor,
        n_workers=args.num_workers,
        rgb_suffix=args.rgb_suffix,
        encoding=args.encoding,
    )
    report(result, args.valid_data_path)


if __name__ == "__main__":
    cli.run(main)
