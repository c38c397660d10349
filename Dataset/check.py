"""Check a data folder before training: find everything that would stop a training run or make its result wrong.

Reads every file of DATA_PATH/Train_spectral, Train_RGB, Valid_spectral and Valid_RGB. Prints a summary, then one line
per problem with what to do about it. Writes nothing.

Errors: a missing folder; a file without a partner, or that cannot be read; an image whose size differs from its
cube's, that is smaller than a patch (training) or than 6 x 4 pixels (validation), or that shows something else than
its cube; other bands than most scenes have; NaN; a part without a usable scene. With any error the exit status is 1.
Notes, with which training works: values above 1; the same cube or image under two names; a pair too small or too
smooth to compare. Dark values are counted as the preparation would treat them (--non_positive).

An image is compared with its cube by the correlation of the fine detail of their luminance. Correct pairs have about
0.9 and more, wrong pairs less than 0.4. Swapped colour channels are not detected.
"""

import argparse
import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from drcr.cube import check_cube, check_same_size, describe_bands, same_bands
from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.matfile import load_cube
from drcr.utils import cli
from drcr.utils.files import DataError, plural
from drcr.utils.parallel import available_cores, prepare_process

PARTS = {"Train": "training", "Valid": "validation"}

# Measured on all pairs of 24 CAVE scenes (256 x 256, averaged to 128 x 128 and 64 x 64), of 14 simulated scenes of
# 128 x 128 and of 10 of 482 x 512, with real-world and some clean images: the lowest correct pair has 0.906, the
# highest wrong pair 0.28 (at 64 x 64: 0.38). Plain correlation: 0.89 and 0.73, because of dark backgrounds.
# Difficult correct pairs, the lowest of each: display gamma 0.81; 10 photo-electrons instead of 750, 0.77; only the
# blue channel 0.79; exposed to a mean of 0.5 of full scale 0.72, of 0.7 (mostly clipped) 0.59; shifted by 3 of 256
# pixels 0.46, by 2 of 128 pixels 0.34.
BELONGS = 0.4
# With less detail, as when out of focus, noise decides (the scenes above have at least 0.037). In smaller images
# chance decides: at 32 x 32, 1 of 150 correct CAVE crops and 98 of 100 wrong pairs have less than 0.4.
MIN_DETAIL, MIN_SIDE = 0.02, 32
# Mirrored and rotated images of symmetric scenes reach 0.72; the correct orientation is better by 0.27.
TURNED, TURNED_GAIN = 0.8, 0.15

# relative errors on smaller values dominate all others
DIM = 0.01


class Fault(NamedTuple):
    """An error or a note: `text` names the file, `kind` groups it with others."""

    kind: str
    text: str


@dataclass
class CheckedScene:
    """The files of a scene and, once `check_scene` has read them, what the report needs."""

    part: str
    cube_path: Path | None
    rgb_path: Path | None
    errors: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    size: tuple[int, int] | None = None
    wavelengths: tuple[float, ...] | None = None
    lowest: float = np.nan
    highest: float = np.nan
    n_values: int = 0
    n_dark: int = 0
    n_dim: int = 0
    cube_digest: bytes | None = None
    rgb_digest: bytes | None = None

    @property
    def name(self) -> str:
        """Part and name, as Train/ARAD_1K_0001."""
        return f"{self.part}/{(self.cube_path or self.rgb_path).stem}"

    def is_skipped(self, floor: float | None) -> bool:
        """Return whether the preparation skips this scene."""
        return floor is None and self.n_dark > 0


def find_files(folder: Path, suffixes: tuple[str, ...], what: str, errors: list[Fault]) -> dict[str, Path]:
    """Return the files of a folder by name without suffix, like `list_files`, but collect what that would raise."""
    if not folder.is_dir():
        errors.append(Fault("no folder", f"{folder}: no such folder; add a folder of {what} ({' '.join(suffixes)})"))
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.is_symlink() and not path.exists():
            errors.append(Fault("dangling link", f"{path}: is a link to a missing file; repair or remove it"))
            continue
        if not path.is_file():
            continue
        first = found.setdefault(path.stem, path)
        if first != path:
            text = f"{path}: {first.name} has the same name; keep only one of the two"
            errors.append(Fault("two files of one name", text))
    if not found:
        errors.append(Fault("no files", f"{folder}: no {what} in this folder ({' '.join(suffixes)})"))
    return found


def find_scenes(data_path: Path, part: str, errors: list[Fault]) -> list[CheckedScene]:
    """Return the scenes of a part, including files without a partner; faults of the folders go to `errors`."""
    cubes = find_files(data_path / f"{part}_spectral", (".mat",), "spectral cubes", errors)
    images = find_files(data_path / f"{part}_RGB", IMAGE_SUFFIXES, "RGB images", errors)
    scenes = [CheckedScene(part, cubes.get(name), images.get(name)) for name in sorted(cubes.keys() | images.keys())]
    if cubes and images:  # otherwise one line covers all
        for scene in scenes:
            if scene.cube_path is None or scene.rgb_path is None:
                path, partner = scene.cube_path or scene.rgb_path, "cube" if scene.cube_path is None else "RGB image"
                text = f"{path}: no {partner} of the same name; add it, or remove the file"
                scene.errors.append(Fault(f"without {partner}", text))
    return scenes


def digest(array: np.ndarray) -> bytes:
    """Return a hash of an array's shape and values."""
    hashed = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(array))
    return hashed.digest()


def detail(luminance: np.ndarray) -> np.ndarray:
    """Return the detail of a luminance (H, W) at scales of about 1 % to 3 % of its shorter side, for a mean of 1.

    Finer detail (noise, JPEG) and coarser detail (dark backgrounds, which wrong pairs share) is removed. The square
    root keeps highlights, which an image may have clipped, from dominating.
    """
    root = np.sqrt(np.maximum(luminance, 0))
    coarse = max(min(root.shape) / 32, 2)
    fine = max(coarse / 4, 1)
    smooth, smoother = (cv2.GaussianBlur(root, (0, 0), sigma) for sigma in (fine, coarse))
    return (smooth - smoother) / max(root.mean(), 1e-20)


def orientations(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return an image (H, W) mirrored and rotated in each way that keeps its shape, by name."""
    found = {
        "mirrored left to right": image[:, ::-1],
        "mirrored upside down": image[::-1],
        "rotated by 180 degrees": image[::-1, ::-1],
        "rotated by 90 degrees": np.rot90(image),
        "rotated by 270 degrees": np.rot90(image, 3),
        "transposed": image.T,
        "transposed and rotated by 180 degrees": image[::-1, ::-1].T,
    }
    return {name: turned for name, turned in found.items() if turned.shape == image.shape}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two images' values."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def compare(scene: CheckedScene, cube_luminance: np.ndarray, rgb_luminance: np.ndarray) -> None:
    """Add an error if an image cannot belong to its cube, and a note if that cannot be decided."""
    if min(cube_luminance.shape) < MIN_SIDE:
        text = f"{scene.rgb_path}: smaller than {MIN_SIDE} pixels, too small to tell whether it belongs to its cube"
        scene.notes.append(Fault("too small to tell", text))
        return
    cube_detail, rgb_detail = detail(cube_luminance), detail(rgb_luminance)
    for path, there in ((scene.cube_path, cube_detail), (scene.rgb_path, rgb_detail)):
        if there.std() < MIN_DETAIL:
            text = (
                f"{path}: almost no detail, too smooth to tell whether image and cube belong together; look at both"
            )
            scene.notes.append(Fault("too smooth to tell", text))
            return
    as_it_is = correlation(cube_detail, rgb_detail)
    if as_it_is >= TURNED:
        return
    turned = {name: correlation(cube_detail, image) for name, image in orientations(rgb_detail).items()}
    way = max(turned, key=turned.get)
    if turned[way] > max(TURNED, as_it_is + TURNED_GAIN):
        text = (
            f"{scene.rgb_path}: matches its cube only {way}: correlation {turned[way]:.2f}, as it is {as_it_is:.2f}"
        )
        scene.errors.append(Fault("image rotated", f"{text}; rotate or mirror it"))
    elif as_it_is < BELONGS:
        text = f"{scene.rgb_path}: does not belong to its cube, correlation {as_it_is:.2f}; find the correct image"
        scene.errors.append(Fault("wrong image", text))


def check_one_cube(scene: CheckedScene, path: Path, floor: float | None) -> np.ndarray:
    """Read a scene's cube, fill in what the report needs, return its luminance (H, W). Raises DataError."""
    stored = load_cube(path)
    cube = stored.values
    scene.size = cube.shape[:2]
    check_cube(cube, path)
    # (bands, W, H), as the file has it: no copy
    scene.cube_digest = digest(cube.T)
    scene.lowest, scene.highest, scene.n_values = float(cube.min()), float(cube.max()), cube.size
    scene.n_dark = int(np.count_nonzero(cube <= 0 if floor is None else cube < np.float32(floor)))
    scene.n_dim = int(np.count_nonzero(cube < DIM))
    if scene.highest > 1:
        text = f"{path}: values up to {scene.highest:.4g}, but scoring clips reconstructions to [0, 1]"
        scene.notes.append(Fault("values above 1", f"{text}; divide all cubes by the same number"))
    scene.wavelengths = tuple(stored.require_wavelengths().tolist())
    return cube.mean(2)


def check_scene(scene: CheckedScene, floor: float | None) -> CheckedScene:
    """Read a scene's files and return it with what was found. Runs in a separate process."""
    cube_luminance = rgb = None
    try:
        if scene.cube_path is not None:
            cube_luminance = check_one_cube(scene, scene.cube_path, floor)
    except (DataError, OSError, MemoryError) as error:
        add_failure(scene, scene.cube_path, error)
    try:
        if scene.rgb_path is not None:
            rgb = read_rgb(scene.rgb_path)
            scene.rgb_digest = digest(rgb)
    except (DataError, OSError, MemoryError) as error:
        add_failure(scene, scene.rgb_path, error)
    if rgb is not None and scene.size is not None:
        try:
            check_same_size(rgb.shape, scene.rgb_path, scene.size, scene.cube_path)
        except DataError as error:
            scene.errors.append(Fault("size of image and cube", str(error)))
        else:
            if cube_luminance is not None:
                compare(scene, cube_luminance, np.float32(rgb).mean(2))
    return scene


def add_failure(scene: CheckedScene, path: Path, error: Exception) -> None:
    """Add a file that could not be read to the broken files, if a new copy would help, otherwise to the errors."""
    text = str(error)
    if text.endswith("download it again"):  # what the readers say of truncated and corrupted files
        scene.broken.append(path)
    elif isinstance(error, DataError):
        scene.errors.append(Fault("contents", text))
    else:
        reason = getattr(error, "strerror", None) or "does not fit into memory"
        scene.errors.append(Fault("reading", f"{path}: {reason}"))


def check_scenes(scenes: list[CheckedScene], floor: float | None, n_workers: int) -> list[CheckedScene]:
    """Return the scenes with what was found in them, in the same order."""
    if not scenes:
        return []
    done: dict[str, CheckedScene] = {}

    def run(todo: list[CheckedScene]) -> None:
        with ProcessPoolExecutor(min(n_workers, len(todo)), initializer=prepare_process) as pool:
            try:
                for future in as_completed([pool.submit(check_scene, scene, floor) for scene in todo]):
                    scene = future.result()
                    done[scene.name] = scene
                    progress.update()
            except BrokenProcessPool:
                pass
            except BaseException:  # Ctrl-C: do not wait for scenes that have not begun
                pool.shutdown(cancel_futures=True)
                raise

    with tqdm(total=len(scenes), desc="checking", unit="scene", dynamic_ncols=True) as progress:
        run(scenes)
        for scene in scenes:
            # a file has killed the process that opened it, and so the pool; now each scene has its own process
            if scene.name not in done:
                run([scene])
            if scene.name not in done:
                text = f"{scene.cube_path}, {scene.rgb_path}: reading them kills the process"
                advice = "download them again, unless they are too large for the memory"
                scene.errors.append(Fault("reading", f"{text}; {advice}"))
                done[scene.name] = scene
    return [done[scene.name] for scene in scenes]


def check_together(scenes: list[CheckedScene], floor: float | None, patch_size: int) -> None:
    """Add the errors that depend on the options or on the other scenes, as the preparation would raise them."""
    kept = [scene for scene in scenes if scene.wavelengths is not None and not scene.is_skipped(floor)]
    bands = Counter(scene.wavelengths for scene in kept)
    votes = {one: sum(count for other, count in bands.items() if same_bands(one, other)) for one in bands}
    usual = max(votes, key=votes.get, default=())
    for scene in kept:
        if not same_bands(scene.wavelengths, usual):
            has, most = (describe_bands(np.array(wavelengths)) for wavelengths in (scene.wavelengths, usual))
            text = f"{scene.cube_path}: {has}, but {votes[usual]} of {len(kept)} scenes have {most}"
            scene.errors.append(Fault("other bands", f"{text}; all need the same wavelengths; remove it"))
        path, needed = scene.rgb_path or scene.cube_path, (6, 4) if scene.part == "Valid" else (patch_size,) * 2
        if scene.size[0] < needed[0] or scene.size[1] < needed[1]:
            text = f"{path}: {times(scene.size)} pixels; {PARTS[scene.part]} needs at least {times(needed)}"
            what = "choose a smaller --patch_size" if scene.part == "Train" else "remove it"
            scene.errors.append(Fault(f"too small for {PARTS[scene.part]}", f"{text}; {what}"))


def find_copies(scenes: list[CheckedScene]) -> list[Fault]:
    """Return a note for each cube or image that is there under several names."""
    alike: dict[tuple[str, bytes], list[str]] = {}
    for scene in scenes:
        for what, value in (("cube", scene.cube_digest), ("image", scene.rgb_digest)):
            if value is not None:
                alike.setdefault((what, value), []).append(scene.name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for (what, _), names in alike.items():
        if len(names) > 1:
            groups.setdefault(tuple(names), []).append(what)
    notes = []
    for names, what in groups.items():
        both = len({name.split("/")[0] for name in names}) > 1
        advice = "validation would use training data; remove one of them" if both else "keep one of them"
        kind = "in both parts" if both else "copies"
        notes.append(Fault(kind, f"{shorten(names)}: the same {' and '.join(what)}; {advice}"))
    return sorted(notes, reverse=True)


def times(size: Iterable[int]) -> str:
    """Return a size as in `482 x 512`."""
    return " x ".join(map(str, size))


def shorten(names: Iterable[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(items: Iterable[str]) -> str:
    """Return the different texts, the most frequent first, with their counts if there are several."""
    counts = Counter(items)
    return shorten(
        [text if len(counts) == 1 else f"{text} ({count} scenes)" for text, count in counts.most_common()], 4
    )


def describe_part(part: str, scenes: list[CheckedScene], floor: float | None) -> None:
    """Print a summary of a part."""
    print(f"{part}: {plural(len(scenes), 'scene')}")
    sizes = [times(scene.size) for scene in scenes if scene.size]
    if sizes:
        print(f"  pixels  {counted(sizes)}")
    bands = [describe_bands(np.array(scene.wavelengths)) for scene in scenes if scene.wavelengths]
    if bands:
        print(f"  bands   {counted(bands)}")
    read = [scene for scene in scenes if scene.n_values]
    if read:
        low, high = min(scene.lowest for scene in read), max(scene.highest for scene in read)
        print(f"  values  {low:.4g} to {high:.4g}")
        dark, total = [scene for scene in read if scene.n_dark], sum(scene.n_values for scene in read)
        n_dark, limit = sum(scene.n_dark for scene in dark), "<= 0" if floor is None else f"< {floor:g}"
        if dark:
            what = "skipped" if floor is None else f"raised to {floor:g}"
            print(f"  dark    {n_dark:,} of {total:,} values {limit} ({n_dark / total:.2%})")
            print(f"          in {len(dark)} of {len(read)} scenes, {what}: {shorten(scene.name for scene in dark)}")
        else:
            print(f"  dark    no values {limit}")
        dim = sum(scene.n_dim for scene in read) / total
        if floor is None and dim > 0.01:
            print(
                f"  dim     {dim:.1%} of the values are below {DIM:g}, where relative errors are very large; consider"
            )
            print(f"          --non_positive floor {DIM:g}, or scoring with --min_radiance")


def print_faults(word: str, faults: list[Fault], everything: bool) -> None:
    """Print errors or notes, grouped by kind."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault.text)
    for kind, texts in kinds.items():
        shown = texts if everything or len(texts) <= 4 else texts[:3]
        for text in shown:
            print(f"{word}: {text}")
        if len(texts) > len(shown):
            print(f"{word}: and {len(texts) - len(shown)} more like these ({kind}); --all lists them")


def find_empty_parts(data_path: Path, scenes: list[CheckedScene], floor: float | None) -> list[Fault]:
    """Return an error for each part that has scenes, but none that the preparation would keep."""
    errors = []
    for part in PARTS:
        here = [scene for scene in scenes if scene.part == part]
        if here and all(scene.is_skipped(floor) for scene in here):
            text = f"{data_path / f'{part}_spectral'}: every scene has values <= 0, so none is left"
            errors.append(Fault("none left", f"{text}; keep them with --non_positive floor VALUE"))
    return errors


def print_verdict(errors: list[Fault], scenes: list[CheckedScene]) -> None:
    """Print the broken files; exit with status 1 if there are any, or errors."""
    broken = [path for scene in scenes for path in scene.broken]
    if broken:
        print(f"download again: {plural(len(broken), 'broken file')}")
        for path in broken:
            print(f"  {path}")
    if errors or broken:
        count = len(errors) + len(broken)
        print(f"not ready: {plural(count, 'error')}; fix {'them' if count > 1 else 'it'} and run this again")
        sys.exit(1)


def print_next_commands(args: argparse.Namespace, scenes: list[CheckedScene]) -> None:
    """Print how many scenes are ready, and the commands that prepare them."""
    kept = Counter(scene.part for scene in scenes if not scene.is_skipped(args.floor))
    print(f"ready: {kept['Train']} training and {kept['Valid']} validation scenes. Next:")
    root, floor = Path(__file__).resolve().parent.parent, args.floor
    keep = "" if floor is None else f" --non_positive floor {floor:g}"
    data = shlex.quote(str(args.data_path.resolve()))
    print(f"  cd {shlex.quote(str(root / 'train'))}")
    print(f"  python train_data_preprocess.py --data_path {data} --patch_size {args.patch_size}{keep}")
    print(f"  python valid_data_preprocess.py --data_path {data}{keep}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, check everything, report."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, default=".", help="folder with Train_spectral, Train_RGB and the same for Valid")
    add("--patch_size", type=cli.at_least(4), default=128, help="side of a training patch in pixels")
    cli.add_non_positive(parser)
    add(
        "--num_workers",
        type=cli.at_least(1),
        default=available_cores(),
        help="parallel processes, each with one scene in memory",
    )
    add("--all", action="store_true", help="list every problem, not only the first of each kind")
    args = parser.parse_args(argv)
    if not args.data_path.is_dir():
        raise DataError(f"{args.data_path}: no such folder")

    errors: list[Fault] = []
    scenes = [scene for part in PARTS for scene in find_scenes(args.data_path, part, errors)]
    scenes = check_scenes(scenes, args.floor, args.num_workers)
    check_together(scenes, args.floor, args.patch_size)
    for part in PARTS:
        describe_part(part, [scene for scene in scenes if scene.part == part], args.floor)
    errors += find_empty_parts(args.data_path, scenes, args.floor)
    errors += [fault for scene in scenes for fault in scene.errors]
    print_faults("error", errors, args.all)
    print_faults("note", find_copies(scenes) + [fault for scene in scenes for fault in scene.notes], args.all)
    print_verdict(errors, scenes)
    print_next_commands(args, scenes)


if __name__ == "__main__":
    cli.run(main)
