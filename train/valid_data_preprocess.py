"""Prepare the validation data: cubes and RGB images become HDF5, which main.py reads whole.

Reads DATA_PATH/Valid_spectral/NAME.mat and DATA_PATH/Valid_RGB/NAME.jpg (also .png .bmp .tif), paired by name.
A scene whose cube has any value <= 0 is skipped and named, as in the released code; --non_positive floor VALUE
keeps it, as for the training data. A run that was interrupted continues where it stopped.
"""

import drcr.utils.start  # isort: skip # noqa: F401
from collections.abc import Sequence
from pathlib import Path

from drcr.preparation.prepare import add_options, run
from drcr.utils import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and prepare the folder."""
    parser = cli.parser(__doc__)
    add_options(parser, "Valid")
    parser.add_argument("--valid_data_path", type=Path, default="./dataset/Valid", help="folder to write")
    args = parser.parse_args(argv)
    run(args, "Valid", args.valid_data_path)


if __name__ == "__main__":
    cli.run(main)
