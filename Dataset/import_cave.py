"""Import the CAVE multispectral image data base as it is distributed: import_cubes.py --dataset cave."""

import drcr.utils.start  # isort: skip # noqa: F401
import sys
from collections.abc import Sequence

import import_cubes

from drcr.utils import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Run import_cubes.py."""
    import_cubes.main(["--dataset", "cave", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    cli.run(main)
