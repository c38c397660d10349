"""How near a cube's image is to the image it was made from: cubes of test.py against their images.

Photographs: the CIE 1931 observer looks at the cube under light of equal energy, at the photograph's exposure (least
squares of the brightness, clipped pixels aside); the mean CIEDE2000 to the photograph. Linear images: the camera
looks at the cube; the mean relative error at the scale where it is least, over pixels with all values from 8 to 250.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drcr.camera import OBSERVER, responses
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import load_cube
from drcr.images import find_images, read_image
from drcr.metrics import best_scale_mrae
from drcr.utils import cli
from drcr.utils.extras import needs

with cli.imports(), needs("simulation", "image_again.py"):
    from colour import XYZ_to_Lab
    from colour.difference import delta_E_CIE2000

EQUAL_ENERGY = (1 / 3, 1 / 3)


def colour_error(cube: np.ndarray, rgb: np.ndarray, wavelengths: np.ndarray) -> float:
    """Return the mean CIEDE2000 of a cube (H, W, bands) and a photograph (H, W, 3) in linear sRGB, 0 to 1."""
    curves, matrix = responses(OBSERVER, None, wavelengths)
    seen, photograph = cube @ curves, rgb @ matrix
    used = rgb.max(2) < 0.98 * rgb.max()
    ours, theirs = seen[used][:, 1], photograph[used][:, 1]
    shown = seen * (ours @ theirs) / (ours @ ours) @ np.linalg.inv(matrix)
    first, second = (XYZ_to_Lab(xyz, EQUAL_ENERGY) for xyz in (shown.clip(0, 1) @ matrix, photograph))
    return float(np.mean(delta_E_CIE2000(first, second)))


def camera_error(cube: np.ndarray, rgb: np.ndarray, curves: np.ndarray) -> float:
    """Return the relative error of what a camera sees of a cube (H, W, bands) to its image (H, W, 3)."""
    used = (rgb.min(2) >= 8 / 255) & (rgb.max(2) <= 250 / 255)
    return best_scale_mrae((cube @ curves)[used], rgb[used])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the error of each cube, and the mean."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--RGB_dir", type=Path, required=True, help="folder of the images")
    add("--path_rec", type=Path, required=True, help="folder of their cubes (.mat)")
    add("--camera", default=OBSERVER, help="sRGB for photographs, else a camera as for render_rgb.py --camera")
    add("--gains", type=cli.positive, nargs=3, metavar=("R", "G", "B"), help="analogue gains of --camera")
    args = parser.parse_args(argv)
    errors = []
    for path in find_images(args.RGB_dir):
        cube = load_cube(args.path_rec / f"{path.stem}.mat")
        rgb, wavelengths = read_image(path).values, WAVELENGTHS if cube.wavelengths is None else cube.wavelengths
        if args.camera == OBSERVER:
            error = colour_error(cube.values.clip(0, 1), rgb, wavelengths)
        else:
            error = camera_error(cube.values, rgb, responses(args.camera, args.gains, wavelengths)[0])
        errors.append(error)
        print(f"{path.name}: {error:.4f}")
    print(f"mean of {len(errors)}: {np.mean(errors):.4f}")


if __name__ == "__main__":
    cli.run(main)
