"""Measure how far test.py's default protocol, padded, is from the released one, row by row.

For each image: the largest absolute difference above the last 16 rows and in them, and with the true cubes given
the MRAE of both. Simulated scenes of the released size:
python ../Dataset/simulate.py --n_train 0 --n_valid 5 --out five
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import metrics
from drcr.checkpoint import load_model
from drcr.formats.mat import read_cube
from drcr.images import IMAGE_SUFFIXES, normalise_rgb, read_rgb
from drcr.inference import reconstruct
from drcr.utils import cli
from drcr.utils.files import list_files


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, run both protocols, print a line an image."""
    parser = cli.parser(__doc__)
    parser.add_argument("--RGB_dir", type=Path, default="../Dataset/Valid_RGB", help="folder of images")
    parser.add_argument("--model_dir", type=Path, default="../test/model/model.pth", help="checkpoint")
    parser.add_argument("--path_gt", type=Path, help="folder of true cubes")
    args = parser.parse_args(argv)

    model = load_model(args.model_dir)
    print(f"{'image':16}{'above last 16 rows':>20}{'last 16 rows':>14}{'MRAE released':>15}{'MRAE padded':>13}")
    for name, path in tqdm(list_files(args.RGB_dir, IMAGE_SUFFIXES, "images").items(), unit="image", leave=False):
        rgb = normalise_rgb(read_rgb(path))
        released, padded = (reconstruct(model, rgb, protocol) for protocol in ("released", "padded"))
        difference = np.abs(padded - released).max((1, 2))
        line = f"{name:16}{difference[:-16].max():20.2e}{difference[-16:].max():14.2e}"
        if args.path_gt:
            truth = read_cube(args.path_gt / f"{name}.mat")
            line += "".join(f"{metrics.mrae(cube.clip(0, 1), truth):14.6f}" for cube in (released, padded))
        tqdm.write(line)


if __name__ == "__main__":
    cli.run(main)
