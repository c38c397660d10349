"""RGB images for cubes that have none, and the data folders that the importers write."""

import argparse
import dataclasses
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from drcr.camera import PRESETS, Camera, Imaging
from drcr.formats.mat import write_cube
from drcr.images import IMAGE_SUFFIXES
from drcr.light import lamp
from drcr.preparation.photograph import Cameras, Photograph
from drcr.utils import cli
from drcr.utils.extras import needs
from drcr.utils.files import DataError, list_files, write_atomically

DEFAULT_CAMERA = "Nikon 5100 (NPL)"


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `image_options` reads."""
    real, photo = PRESETS["real-world"], Photograph()
    group = parser.add_argument_group("RGB images")
    add = group.add_argument
    add(
        "--preset",
        choices=[*sorted(PRESETS), "photograph"],
        default="real-world",
        help=f"real-world: {real.electrons} photo-electrons at white, exposed to a mean of {real.mean}, JPEG of "
        f"quality {real.quality}, linear, as NTIRE 2022 describes its images. clean: no noise, exposed to the "
        "largest value, PNG, linear. photograph: as a camera writes it: a camera drawn at random, white balance with "
        "an error of 4%%, a colour matrix to sRGB, exposed to a mean of "
        f"{photo.mean[0]} to {photo.mean[1]}, {photo.electrons[0]} to {photo.electrons[1]} photo-electrons at white, "
        f"sRGB curve, JPEG of quality {photo.quality[0]} to {photo.quality[1]}, tagged as sRGB. The options below "
        "change single parts of it",
    )
    add(
        "--camera",
        help="camera of colour-science, a CSV file (wavelength, R, G, B), or a folder of such files, of which each "
        f"image draws one (default: {DEFAULT_CAMERA}; for photograph all cameras of colour-science)",
    )
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
        help="photo-electrons at white: the count in green for a cube of ones, with any camera. 0: no noise",
    )
    add(
        "--mean",
        type=cli.non_negative,
        help="exposure: the linear image's mean as a part of full scale. 0: its largest value at full scale (not for "
        "photograph)",
    )
    add("--quality", type=cli.at_least(0), help="quality of the JPEG, 1 to 100. 0: PNG (not for photograph)")
    add(
        "--light",
        metavar="NAME",
        help="CIE illuminant of the scenes, to which photographs are white-balanced; E: equal energy, for cubes of "
        "reflectances such as CAVE's (default: estimated from each image; known in simulated scenes)",
    )


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add --keep and --seed, which all that write a `DataFolder` have."""
    parser.add_argument(
        "--keep",
        action="store_true",
        help="go on where an earlier run stopped: scenes that are there are kept, whatever they were made with",
    )
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="seed of everything random, such as noise")


def image_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[Camera | Cameras, Imaging | Photograph]:
    """Return what the options of `add_image_options` say. Raises DataError if there is no such camera or light."""
    given = {name: getattr(args, name) for name in ("electrons", "mean", "quality")}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("mean", 0) >= 1 or given.get("quality", 0) > 100 or not 1 <= (given.get("electrons") or 1) <= 1e9:
        parser.error("--mean below 1, --quality of 100 at most, --electrons 0 or from 1 to 1e9 are needed")
    if args.gains and max(args.gains) > 1000:
        parser.error("--gains of 1000 at most are needed")
    if args.preset == "photograph":
        if not all(given.get(name, 1) for name in ("mean", "quality")):
            parser.error("--preset photograph needs --mean and --quality above 0")
        light = None if args.light is None else lamp(args.light)
        ranges = {name: (value, value) for name, value in given.items()}
        imaging = dataclasses.replace(Photograph(light=light), **ranges)
    else:
        if args.light is not None:
            parser.error("--light is for --preset photograph")
        imaging = dataclasses.replace(PRESETS[args.preset], **given)
    return _cameras(args), imaging


def _cameras(args: argparse.Namespace) -> Camera | Cameras:
    """Return the camera or cameras of the options; sets `args.camera` to what they are, for a report."""
    gains = args.gains
    if args.preset == "photograph":
        gains = gains or (1, 1, 1)  # the white balance comes after the noise
        if args.camera is None:
            with needs("simulation", "a measured camera"):
                from colour import MSDS_CAMERA_SENSITIVITIES

            args.camera = "all cameras of colour-science"
            return Cameras([Camera(name, gains) for name in sorted(MSDS_CAMERA_SENSITIVITIES)])
    args.camera = args.camera or DEFAULT_CAMERA
    if Path(args.camera).is_dir():
        return Cameras([Camera(path, gains) for path in list_files(args.camera, (".csv",), "cameras").values()])
    return Camera(args.camera, gains)


def scene_rng(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of a scene's noise; they depend on `seed` and the scene's name alone."""
    return np.random.default_rng([seed, zlib.crc32(os.fsencode(name))])


def render_rgb(
    cube: np.ndarray,
    wavelengths: np.ndarray,
    camera: Camera | Cameras,
    imaging: Imaging | Photograph,
    rng: np.random.Generator,
    name: str,
) -> bytes:
    """Return the image file of the cube (H, W, bands) of the scene `name`, as `camera` and `imaging` make it.

    Raises DataError if the camera sees nothing, or if values are above 1.
    """
    if cube.max() > 1:
        raise DataError(
            f"{name}: values up to {cube.max():g}, but radiance from 0 to 1 is needed; import_cubes.py --scale "
            "divides them"
        )
    if isinstance(camera, Cameras):
        camera = camera.draw(rng)
    linear = camera(cube, wavelengths)
    if not linear.max() > 0:
        raise DataError(f"{name}: black all over; there is nothing to make an image of")
    white = camera.white(wavelengths)
    if isinstance(imaging, Photograph):
        image = imaging.develop(linear / white, camera, rng)
    else:
        image = imaging.develop(linear, rng, white)
    if not image.any():
        raise DataError(f"{name}: too dark for an image of 8 bits; use more --electrons or another exposure (--mean)")
    return imaging.encode(image, rng) if isinstance(imaging, Photograph) else imaging.encode(image)


@dataclasses.dataclass(frozen=True)
class DataFolder:
    """A data folder to write: `Train_spectral`, `Train_RGB`, `Valid_spectral`, `Valid_RGB` under `out`.

    Files that are there already are never overwritten.
    """

    out: Path
    camera: Camera | Cameras
    imaging: Imaging | Photograph
    rgb: bool = True
    """Whether images are written at all."""

    def paths(self, part: str, name: str) -> tuple[Path, Path]:
        """Return where a scene's cube and image go; `part` is Train or Valid."""
        return (
            self.out / f"{part}_spectral" / f"{name}.mat",
            self.out / f"{part}_RGB" / f"{name}{self.imaging.suffix}",
        )

    def choose(
        self, found: Iterable[str], parts: dict[str, str], keep: bool, split: Path | None = None
    ) -> dict[str, str]:
        """Return the part of each scene to be written, by name: those found that `parts`, read from `split`, names.

        With `keep` those that are there already are left as they are, whatever they were made with. Prints what is
        skipped. Raises DataError if the split names none of them, and without `keep` if a file of one is there
        already.
        """
        scenes = {name: parts[name] for name in found if name in parts}
        if found and not scenes:
            raise DataError(f"{split}: names none of the scenes found: {', '.join(found)}")
        for what, names in (
            ("in the split, but not found", parts.keys() - found),
            ("skipped, not in the split", set(found) - parts.keys()),
        ):
            if names:
                print(f"{what}: {', '.join(sorted(names))}")
        if keep:
            kept = {name for name, part in scenes.items() if all(self._there(part, name))}
            print(f"{len(kept)} of {len(scenes)} scenes are there already, and kept as they are")
            return {name: part for name, part in scenes.items() if name not in kept}
        for name, part in scenes.items():
            for path in filter(None, self._there(part, name)):
                raise DataError(
                    f"{path}: is there already; --keep goes on with the others, --data_path is another folder"
                )
        return scenes

    def _there(self, part: str, name: str) -> list[Path | None]:
        """Return a scene's cube, and image if there are to be any, of whatever suffix; None for what is missing."""
        cube, image = self.paths(part, name)
        images = (image.with_name(name + suffix) for suffix in IMAGE_SUFFIXES)
        found = [cube if cube.exists() else None]
        return found + [next((path for path in images if path.exists()), None)] * self.rgb

    def write(
        self,
        part: str,
        name: str,
        cube: np.ndarray,
        wavelengths: np.ndarray,
        rng: np.random.Generator,
        *,
        light: np.ndarray | None = None,
        **variables: Any,
    ) -> None:
        """Write a scene: its cube (H, W, bands), as it is, and the image made of it, with noise from `rng`.

        Only what is missing of the two is written.

        Parameters
        ----------
        light : the scene's light (31,) at 400-700 nm if it is known, for the white balance of a photograph
        variables : further scalars of the .mat file
        """
        cube_path, rgb_path = self.paths(part, name)
        there = self._there(part, name)
        imaging = self.imaging
        if isinstance(imaging, Photograph) and imaging.light is None:
            imaging = dataclasses.replace(imaging, light=light)
        image = render_rgb(cube, wavelengths, self.camera, imaging, rng, name) if None in there[1:] else None
        if there[0] is None:
            cube_path.parent.mkdir(parents=True, exist_ok=True)
            write_cube(cube_path, cube, wavelengths, **variables)
        if image is not None:
            rgb_path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(rgb_path, lambda file: file.write(image))
