"""What a point of known reflectance gives: test.py --reference on photographs whose cubes are known.

In each photograph the point is the brightest neutral patch of 3 x 3 pixels: in the ground truth the standard
deviation over the bands is below 15% of the mean, and in the photograph no channel is clipped. Its reflectance is
what the ground truth has there. Prints the MRAE as it is, with the reference, and at the best scale of each cube.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from drcr.checkpoint import load_model
from drcr.cube import reference_factor
from drcr.formats.mat import load_cube
from drcr.images import find_images, read_image
from drcr.inference import Reconstructor
from drcr.metrics import best_scale_mrae, mrae
from drcr.utils import cli
from drcr.utils.files import DataError

NEUTRAL, CLIPPED = 0.15, 0.95


def neutral_point(truth: np.ndarray, rgb: np.ndarray) -> tuple[int, int, float]:
    """Return row, column and reflectance of the brightest neutral patch. Raises DataError if there is none."""
    patch = cv2.blur(truth.mean(2), (3, 3))
    spread = cv2.blur(truth.std(2), (3, 3)) / patch
    usable = (spread < NEUTRAL) & (cv2.dilate(rgb.max(2), np.ones((3, 3))) < CLIPPED)
    usable[[0, -1]] = usable[:, [0, -1]] = False
    if not usable.any():
        raise DataError("no neutral patch")
    row, column = np.unravel_index(np.where(usable, patch, 0).argmax(), patch.shape)
    return int(row), int(column), float(patch[row, column])


def main(argv: Sequence[str] | None = None) -> None:
    """Reconstruct and score each photograph."""
    parser: argparse.ArgumentParser = cli.parser(__doc__)
    parser.add_argument(
        "--RGB_dir", type=Path, default="../photographs/test/photographs/Valid_RGB", help="photographs"
    )
    parser.add_argument(
        "--path_gt", type=Path, default="../photographs/test/photographs/Valid_spectral", help="their cubes"
    )
    parser.add_argument(
        "--model_dir",
        type=Path,
        default="../photographs/photographs/last.pth",
        help="checkpoint that was not trained on their scenes, such as that of photographs.py for 14 scenes",
    )
    args = parser.parse_args(argv)
    reconstruct, found = Reconstructor(load_model(args.model_dir)), []
    for path in find_images(args.RGB_dir):
        rgb = read_image(path).normalised()
        truth = load_cube(args.path_gt / f"{path.stem}.mat").values.clip(0.01)
        row, column, reflectance = neutral_point(truth, rgb)
        rec = reconstruct(rgb)
        factor, _ = reference_factor(rec, (row, column), reflectance, path)
        clipped = [np.ascontiguousarray(cube.clip(0, 1)) for cube in (rec, rec * np.float32(factor))]
        found.append([*(float(mrae(cube, truth)) for cube in clipped), best_scale_mrae(clipped[0], truth)])
        print(f"{path.stem}: ({row}, {column}) {reflectance:.3f}, MRAE {' '.join(f'{x:.4f}' for x in found[-1])}")
    print("mean: as it is, with the reference, at best scale:", " ".join(f"{x:.4f}" for x in np.mean(found, 0)))


if __name__ == "__main__":
    cli.run(main)
