"""Simulate hyperspectral scenes and their RGB images, in ARAD_1K's folders, names and file formats.

Each scene is a random arrangement of overlapping shapes (dead leaves), with measured reflectances (the 99 CIE 2017
colour samples and the ColorChecker), shading, texture and a mixture of two CIE illuminants. Its RGB image is made
as the NTIRE 2022 challenge made its own: a measured camera, photon noise, exposure, 8 bits, JPEG.

Writes DATA_PATH/Train_spectral/ARAD_1K_0001.mat ..., DATA_PATH/Train_RGB/ARAD_1K_0001.jpg ..., and the same for
Valid from 0901 on. Each scene depends on the options, --seed and its number alone. Files that are there already are
never overwritten.
"""

import drcr.utils.start  # isort: skip # noqa: F401
import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from drcr.cube import WAVELENGTHS
from drcr.light import lamp
from drcr.preparation.render import DataFolder, add_folder_options, add_image_options, image_options
from drcr.preparation.simulation import SceneModel, read_library
from drcr.utils import cli


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    scene = SceneModel()
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, default="./simulated", help="folder to write")
    add("--n_train", type=cli.at_least(0), default=20, help="number of training scenes")
    add("--n_valid", type=cli.at_least(0), default=5, help="number of validation scenes")
    add_folder_options(parser)
    group = parser.add_argument_group("scenes")
    add = group.add_argument
    pair: dict[str, Any] = {"nargs": 2, "metavar": ("H", "W"), "default": scene.size}
    add("--size", type=cli.at_least(8), **pair, help="height and width in pixels")
    pair = {"nargs": 2, "metavar": ("MIN", "MAX"), "default": scene.radii}
    add("--radii", type=cli.positive, **pair, help="smallest and largest shape")
    add(
        "--illuminants", nargs="+", metavar="NAME", default=scene.illuminants, help="CIE illuminants to mix, two each"
    )
    add(
        "--reflectances",
        nargs="+",
        metavar="luxpy|FILE",
        help="other reflectances than the 123 measured ones: luxpy, for the 119,000 of the package of that name (pip "
        "install luxpy; GPLv3), or CSV files: wavelength in nm, then a column for each reflectance, from 0 to 1. "
        "Training and validation scenes draw from different blocks of them",
    )
    add_image_options(parser)
    return parser


def read_scene_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> SceneModel:
    """Return what the options of the scenes say. Raises DataError if an illuminant is not known."""
    if not args.radii[0] < args.radii[1]:
        parser.error("--radii MIN MAX: MIN must be below MAX")
    if args.n_train > 900:
        parser.error("--n_train of 900 at most: validation scenes are numbered from 901 on")
    for name in args.illuminants:
        lamp(name)  # an unknown one shows before the work
    return SceneModel(
        size=tuple(args.size),
        radii=tuple(args.radii),
        illuminants=tuple(args.illuminants),
        library=read_library(args.reflectances) if args.reflectances else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options and write the scenes."""
    parser = build_parser()
    args = parser.parse_args(argv)
    cli.hold(args.data_path)
    scene = read_scene_options(parser, args)
    camera, imaging = image_options(parser, args)
    parts = {f"ARAD_1K_{1 + i:04}": "Train" for i in range(args.n_train)}
    parts |= {f"ARAD_1K_{901 + i:04}": "Valid" for i in range(args.n_valid)}
    folder = DataFolder(args.data_path, camera, imaging)
    scenes = folder.choose(parts, parts, args.keep)
    for name, part in tqdm(scenes.items(), desc="simulating", unit="scene", dynamic_ncols=True):
        rng = np.random.default_rng([args.seed, int(name[-4:])])
        cube, light = scene.render_lit(rng, part)
        folder.write(part, name, cube, WAVELENGTHS, rng, light=light, norm_factor=1.0)
    print(f"{args.n_train} training and {args.n_valid} validation scenes in {args.data_path}")


if __name__ == "__main__":
    cli.run(main)
