"""Simulate hyperspectral scenes and their RGB images, in ARAD_1K's folders, names and file formats.

Each scene is a random arrangement of overlapping shapes (dead leaves), with measured reflectances (the 99 CIE 2017
colour samples and the ColorChecker), shading, texture and a mixture of two CIE illuminants. Its RGB image is made
as the NTIRE 2022 challenge made its own: a measured camera, photon noise, exposure, 8 bits, JPEG.

Writes OUT/Train_spectral/ARAD_1K_0001.mat ..., OUT/Train_RGB/ARAD_1K_0001.jpg ..., and the same for Valid from
0901 on. Each scene depends on the options, --seed and its number alone. Files that are there already are
never overwritten.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from drcr import cli
from drcr.camera import Camera, Imaging
from drcr.files import DataError, write_atomically
from drcr.matfile import WAVELENGTHS, write_cube
from drcr.simulation import SceneModel, illuminant


def main() -> None:
    """Read the options and write the scenes."""
    scene, imaging = SceneModel(), Imaging()
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, default="./simulated", help="folder to write")
    add("--n_train", type=cli.at_least(0), default=20, help="number of training scenes")
    add("--n_valid", type=cli.at_least(0), default=5, help="number of validation scenes")
    add("--seed", type=cli.at_least(0), default=0, help="seed of everything random")
    group = parser.add_argument_group("scenes")
    add = group.add_argument
    add(
        "--size",
        type=cli.at_least(8),
        nargs=2,
        metavar=("H", "W"),
        default=scene.size,
        help="height and width in pixels",
    )
    add(
        "--radii",
        type=cli.positive,
        nargs=2,
        metavar=("MIN", "MAX"),
        default=scene.radii,
        help="smallest and largest shape",
    )
    add(
        "--exponent",
        type=cli.positive,
        default=scene.exponent,
        help="shapes of radius r are drawn with density r^-EXPONENT",
    )
    add(
        "--texture",
        type=cli.non_negative,
        default=scene.texture,
        help="strength of the patterns inside shapes, 0: none",
    )
    add("--shading", type=cli.non_negative, default=scene.shading, help="strength of light and shadow, 0: none")
    add(
        "--illuminants", nargs="+", metavar="NAME", default=scene.illuminants, help="CIE illuminants to mix, two each"
    )
    add("--blur", type=cli.non_negative, default=scene.blur, help="sigma of the lens in pixels")
    add(
        "--flare",
        type=cli.positive,
        default=scene.flare,
        help="stray light, part of the scene's mean; keeps values above 0",
    )
    group = parser.add_argument_group("RGB images")
    add = group.add_argument
    add("--camera", default="Nikon 5100 (NPL)", help="camera of colour-science, or a CSV file: wavelength, R, G, B")
    add(
        "--gains",
        type=cli.positive,
        nargs=3,
        metavar=("R", "G", "B"),
        help="analogue gains; without them, light of equal energy is neutral. The challenge's camera has "
        "2.2933984 1 1.62308182",
    )
    add(
        "--electrons",
        type=cli.non_negative,
        default=imaging.electrons,
        help="photo-electrons at value 1, 0: no noise",
    )
    add("--mean", type=cli.positive, default=imaging.mean, help="exposure: the image's mean as a part of full scale")
    add("--quality", type=cli.at_least(1), default=imaging.quality, help="quality of the JPEG, 1 to 100")
    args = parser.parse_args()
    if not args.radii[0] < args.radii[1] or args.exponent <= 1 or max(args.texture, args.shading) > 10:
        parser.error("MIN below MAX, an exponent above 1, texture and shading of 10 at most are needed")
    if args.mean >= 1 or args.quality > 100 or 0 < args.electrons < 1 or args.electrons > 1e9:
        parser.error("--mean below 1, --quality of 100 at most, --electrons 0 or from 1 to 1e9 are needed")
    if args.n_train > 900:
        parser.error("--n_train of 900 at most: validation scenes are numbered from 901 on")

    scene = SceneModel(
        size=tuple(args.size),
        radii=tuple(args.radii),
        exponent=args.exponent,
        texture=args.texture,
        shading=args.shading,
        illuminants=tuple(args.illuminants),
        blur=args.blur,
        flare=args.flare,
    )
    imaging = Imaging(args.electrons, args.mean, args.quality)
    camera = Camera(args.camera, args.gains)
    for name in scene.illuminants:
        illuminant(name)  # an unknown one shows before the work

    numbers = [("Train", 1 + i) for i in range(args.n_train)] + [("Valid", 901 + i) for i in range(args.n_valid)]
    targets = [
        (args.out / f"{split}_spectral" / f"ARAD_1K_{i:04}.mat", args.out / f"{split}_RGB" / f"ARAD_1K_{i:04}.jpg")
        for split, i in numbers
    ]
    for path in (path for pair in targets for path in pair):
        if path.exists():
            raise DataError(f"{path}: is there already; choose another --out, or remove it")
    for path in (path for pair in targets for path in pair):
        path.parent.mkdir(parents=True, exist_ok=True)
    for (_, i), (cube_path, rgb_path) in zip(
        tqdm(numbers, desc="simulating", unit="scene", dynamic_ncols=True), targets, strict=True
    ):
        rng = np.random.default_rng([args.seed, i])
        cube = scene.render(rng)
        jpeg = imaging.encode(imaging.develop(camera(cube), rng))
        write_cube(cube_path, cube, WAVELENGTHS, norm_factor=1.0)
        write_atomically(rgb_path, lambda file, jpeg=jpeg: file.write(jpeg))
    print(f"{args.n_train} training and {args.n_valid} validation scenes in {args.out}")


if __name__ == "__main__":
    cli.run(main)
