"""What test.py does with a cube before it is written, and what it writes beside it: pictures and spectra.

The cube of a photograph is what the scene would reflect under light of equal energy, and its brightness is a guess of
the network. A point of known reflectance scales it; a lamp, named by the user, makes radiance of it.
"""

import argparse
import shlex
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drcr.cube import reference_factor
from drcr.figures.colour import true_colour, white_level
from drcr.formats.maps import LEVELS, MAPS, level_image
from drcr.light import lamp
from drcr.utils.files import DataError, begins, refuse_foreign, write_atomically, write_csv

MARK = "drcr.plots"
"""Written into each picture's file, so that a later run recognises it."""
SPECTRA_HEAD = "wavelength_nm"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --reference, --light, --pictures and --spectra."""
    add = parser.add_argument
    add(
        "--reference",
        nargs=3,
        type=float,
        metavar=("ROW", "COL", "VALUE"),
        help="a point of known reflectance, such as white paper (0.9): the cube is multiplied by the number that "
        "makes the mean over the bands of the 3 x 3 pixels there VALUE. Without it the brightness is a guess of the "
        "network",
    )
    add(
        "--light",
        metavar="NAME|FILE",
        help="write radiance under this lamp: the cube times the lamp's spectrum (mean 1). Without it, the cube of a "
        "photograph is what the scene would reflect under equal energy. CIE illuminants of colour-science (A, D65, "
        "FL1 to FL12, LED-B1 ...), or a .csv file (wavelength in nm, power)",
    )
    add(
        "--pictures",
        action="store_true",
        help="also write NAME_colour.png, the cube in true colour, and with --confidence NAME_confidence.png: "
        f"{LEVELS[2]} blue, {LEVELS[1]} yellow, {LEVELS[0]} vermilion",
    )
    add(
        "--spectra",
        nargs="+",
        type=int,
        metavar="ROW COL ...",
        help="also write NAME_spectra.csv: the spectra at these points, counted from 0 at the top left",
    )


def points(args: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the points (row, column) of --spectra. Raises DataError if they are not pairs."""
    numbers: list[int] = args.spectra or []
    if len(numbers) % 2:
        raise DataError("--spectra: needs a row and a column for each point; give an even count of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check(args: argparse.Namespace, path: Path, shape: tuple[int, int]) -> None:
    """Raise DataError if an image (height, width) has not the points asked for, or a file is in the way."""
    named = {"--spectra": points(args)}
    if args.reference:
        row, column, _ = args.reference
        if row % 1 or column % 1:
            raise DataError(f"--reference: row and column are whole numbers, not {row:g} and {column:g}")
        named["--reference"] = [(int(row), int(column))]
    for option, wanted in named.items():
        for row, column in wanted:
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                raise DataError(
                    f"{path}: {shape[0]} rows and {shape[1]} columns, so no pixel {row} {column}; choose another "
                    f"{option}"
                )
    remedy = "choose another --result_dir"
    if args.pictures:
        for kind in ("colour", *([MAPS[1]] if args.confidence else [])):
            picture = args.result_dir / f"{path.stem}_{kind}.png"
            refuse_foreign(picture, lambda path: MARK.encode() in path.read_bytes(), "a picture of test.py", remedy)
    if args.spectra:
        table = args.result_dir / f"{path.stem}_spectra.csv"
        refuse_foreign(table, lambda path: begins(path, SPECTRA_HEAD), "spectra", remedy)


def check_network(args: argparse.Namespace, path: Path, wavelengths: Sequence[float] | None) -> None:
    """Raise DataError if --light or --pictures cannot be had with the bands of a network, before hours of work."""
    if args.light is not None:
        if wavelengths is None:
            raise DataError(f"{path}: states no wavelengths, which --light needs; omit --light")
        lamp(args.light, np.array(wavelengths))
    if args.pictures:
        if wavelengths is None:
            raise DataError(f"{path}: states no wavelengths, which --pictures needs; omit --pictures")
        true_colour(np.ones((1, 1, len(wavelengths))), np.array(wavelengths))


def adjust(args: argparse.Namespace, cube: np.ndarray, wavelengths: Sequence[float] | None, path: Path) -> str:
    """Apply --reference and --light to a cube (H, W, bands) in place; return the words for its origin."""
    words = ""
    if args.reference:
        row, column, value = args.reference
        factor, said = reference_factor(cube, (int(row), int(column)), value, path)
        cube *= np.float32(factor)
        words += f", {said}"
    if args.light is not None and wavelengths is not None:
        cube *= np.float32(lamp(args.light, np.array(wavelengths)))
        words += f", radiance under the lamp {args.light}"
    return words


def write_beside(
    args: argparse.Namespace, stem: str, cube: np.ndarray, wavelengths: Sequence[float] | None, maps: dict[str, Any]
) -> None:
    """Write the pictures and spectra of a cube (H, W, bands) that the options ask for."""
    if args.pictures and wavelengths is not None:
        light = "D65" if args.light is None else "E"  # the lamp is in the values already
        nm = np.array(wavelengths)
        colour = true_colour(cube, nm, light, white_level(cube, nm, light))
        _write_png(args.result_dir / f"{stem}_colour.png", colour)
        if maps:
            _write_png(args.result_dir / f"{stem}_{MAPS[1]}.png", level_image(maps[MAPS[1]], colour))
    if args.spectra:
        columns = {f"{row},{column}": cube[row, column] for row, column in points(args)}
        bands = range(cube.shape[2]) if wavelengths is None else wavelengths
        lines = zip(bands, *columns.values(), strict=True)
        write_csv(args.result_dir / f"{stem}_spectra.csv", [[SPECTRA_HEAD, *columns], *lines])


def _write_png(path: Path, image: np.ndarray) -> None:
    """Write colours (H, W, 3) in [0, 1] as a PNG with MARK in it."""
    data = cv2.imencode(".png", (image[..., ::-1] * 255 + 0.5).astype(np.uint8))[1].tobytes()
    text = b"tEXtSoftware\0" + MARK.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    write_atomically(path, lambda file: file.write(data[:33] + chunk + data[33:]))  # after signature and IHDR


def next_command(args: argparse.Namespace) -> str:
    """Return the command that draws what test.py wrote."""
    images = f" --RGB_dir {shlex.quote(str(args.RGB_dir))}" if args.RGB_dir.is_dir() else ""
    return f"next: python figures.py --path_gt none --path_rec {shlex.quote(str(args.result_dir))}{images}"
