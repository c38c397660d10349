"""Look at a data folder before hours are spent on it: find all that would stop a training, or spoil it.

Opens every file of DATA_PATH/Train_spectral, Train_RGB, Valid_spectral and Valid_RGB, and prints what is there, then
a line for each fault with what to do about it. Nothing is written.

Errors: a missing folder; a file without its partner, or that does not open; an image of another size than its cube,
smaller than a patch (training) or than 6 x 4 pixels (validation), or that does not show what its cube shows; other
bands than most scenes have; NaN; a part of which no scene is left. Any of them, and the exit status is 1.
Notes, with which training works: values above 1, the same cube or image under two names, a pair too small or too
smooth to tell whether it belongs together. What --non_positive does about dark values is counted, as the preparation
would do it.

An image and its cube are compared by the correlation of their luminance's fine detail, at the same place. Right pairs
have about 0.9 and more, wrong ones less than 0.4. Channels in the wrong order are not noticed.
"""

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

from drcr.images import IMAGE_SUFFIXES, read_rgb
from drcr.matfile import check_cube, describe_bands, read_cube, same_bands, wavelengths_of
from drcr.utils import cli
from drcr.utils.files import DataError
from drcr.utils.parallel import available_cores, prepare_process

PARTS = {"Train": "training", "Valid": "validation"}

# Measured on all pairs of 24 scenes of CAVE (256 x 256, averaged to 128 x 128 and 64 x 64), of 14 simulated ones of
# 128 x 128 and of 10 of 482 x 512, with real-world and partly with clean images: the lowest right pair has 0.906, the
# highest wrong one 0.28, at 64 x 64 0.38. (Plain correlation: 0.89 and 0.73, of objects before dark backgrounds.)
# Right pairs made hard, lowest of each: a display's gamma 0.81; 10 photo-electrons for 750, 0.77; the blue channel
# alone 0.79; exposed to a mean of 0.5 of full scale 0.72, of 0.7, mostly clipped, 0.59; shifted by 3 of 256 pixels
# 0.46, by 2 of 128 0.34.
BELONGS = 0.4
# With less detail, as out of focus, noise decides (the scenes above have 0.037 and more). In smaller images chance:
# at 32 x 32, 1 right crop of CAVE in 150 and 98 wrong pairs in 100 have less than 0.4.
MIN_DETAIL, MIN_SIDE = 0.02, 32
# Mirrored and turned images of scenes that look alike both ways reach 0.72; the right way round is 0.27 better.
TURNED, TURNED_GAIN = 0.8, 0.15


# values so small that relative errors over them dwarf all others
DIM = 0.01


class Fault(NamedTuple):
    """An error or a note: `text` names the file, `kind` is what it has in common with others."""

    kind: str
    text: str


@dataclass
class Scene:
    """The files of a scene and, from `look` on, the little that is kept of what they hold."""

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

    def left_out(self, floor: float | None) -> bool:
        """Return whether the preparation leaves this scene out."""
        return floor is None and self.n_dark > 0


def find_files(folder: Path, suffixes: tuple[str, ...], what: str, errors: list[Fault]) -> dict[str, Path]:
    """Return the files of a folder by name without suffix, as `list_files`, but add to `errors` what it raises."""
    if not folder.is_dir():
        errors.append(Fault("no folder", f"{folder}: no such folder; {what} are needed ({' '.join(suffixes)})"))
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        first = found.setdefault(path.stem, path)
        if first != path:
            text = f"{path}: {first.name} has the same name; keep only one of the two"
            errors.append(Fault("two files of one name", text))
    if not found:
        errors.append(Fault("no files", f"{folder}: no {what} in this folder ({' '.join(suffixes)})"))
    return found


def find_scenes(data_path: Path, part: str, errors: list[Fault]) -> list[Scene]:
    """Return the scenes of a part, files without partner among them; faults of the folders go to `errors`."""
    cubes = find_files(data_path / f"{part}_spectral", (".mat",), "spectral cubes", errors)
    images = find_files(data_path / f"{part}_RGB", IMAGE_SUFFIXES, "RGB images", errors)
    scenes = [Scene(part, cubes.get(name), images.get(name)) for name in sorted(cubes.keys() | images.keys())]
    if cubes and images:  # else one line says it for all
        for scene in scenes:
            if scene.cube_path is None or scene.rgb_path is None:
                path, partner = scene.cube_path or scene.rgb_path, "cube" if scene.cube_path is None else "RGB image"
                text = f"{path}: no {partner} of the same name; add it, or take the file away"
                scene.errors.append(Fault(f"without {partner}", text))
    return scenes


def digest(array: np.ndarray) -> bytes:
    """Return a hash of an array's shape and values."""
    hashed = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(array))
    return hashed.digest()


def detail(luminance: np.ndarray) -> np.ndarray:
    """Return the detail of a luminance (H, W), as large as about 1 % to 3 % of its shorter side, for a mean of 1.

    Without what is finer (noise, JPEG) and coarser (dark backgrounds, in which wrong pairs are alike); of the root,
    so that highlights, which an image may have clipped, do not outweigh the rest.
    """
    root = np.sqrt(np.maximum(luminance, 0))
    coarse = max(min(root.shape) / 32, 2)
    fine = max(coarse / 4, 1)
    smooth, smoother = (cv2.GaussianBlur(root, (0, 0), sigma) for sigma in (fine, coarse))
    return (smooth - smoother) / max(root.mean(), 1e-20)


def orientations(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return an image (H, W) mirrored and turned in each way that keeps its shape, by the way's name."""
    found = {
        "mirrored left to right": image[:, ::-1],
        "mirrored upside down": image[::-1],
        "turned by 180 degrees": image[::-1, ::-1],
        "turned by 90 degrees": np.rot90(image),
        "turned by 270 degrees": np.rot90(image, 3),
        "transposed": image.T,
        "transposed and turned by 180 degrees": image[::-1, ::-1].T,
    }
    return {name: turned for name, turned in found.items() if turned.shape == image.shape}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two images' values."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def compare(scene: Scene, cube_luminance: np.ndarray, rgb_luminance: np.ndarray) -> None:
    """Add an error if an image cannot belong to its cube, a note if that cannot be told."""
    if min(cube_luminance.shape) < MIN_SIDE:
        text = f"{scene.rgb_path}: below {MIN_SIDE} pixels, too small to tell whether it belongs to its cube"
        scene.notes.append(Fault("too small to tell", text))
        return
    cube_detail, rgb_detail = detail(cube_luminance), detail(rgb_luminance)
    for path, there in ((scene.cube_path, cube_detail), (scene.rgb_path, rgb_detail)):
        if there.std() < MIN_DETAIL:
            text = f"{path}: almost no detail, too smooth to tell whether image and cube belong together; look at it"
            scene.notes.append(Fault("too smooth to tell", text))
            return
    as_it_is = correlation(cube_detail, rgb_detail)
    if as_it_is >= TURNED:
        return
    turned = {name: correlation(cube_detail, image) for name, image in orientations(rgb_detail).items()}
    way = max(turned, key=turned.get)
    if turned[way] > max(TURNED, as_it_is + TURNED_GAIN):
        text = f"{scene.rgb_path}: fits its cube only {way}: correlation {turned[way]:.2f}, as it is {as_it_is:.2f}"
        scene.errors.append(Fault("image turned", f"{text}; turn it"))
    elif as_it_is < BELONGS:
        text = f"{scene.rgb_path}: does not belong to its cube, correlation {as_it_is:.2f}; find the right image"
        scene.errors.append(Fault("image of something else", text))


def look_at_cube(scene: Scene, floor: float | None) -> np.ndarray:
    """Fill in what is kept of a scene's cube, return its luminance. Raises DataError on a cube of no use."""
    cube = read_cube(scene.cube_path)
    scene.size = cube.shape[:2]
    check_cube(cube, scene.cube_path)
    # (bands, W, H), as the file has it: no copy
    scene.cube_digest = digest(cube.T)
    scene.lowest, scene.highest, scene.n_values = float(cube.min()), float(cube.max()), cube.size
    scene.n_dark = int(np.count_nonzero(cube <= 0 if floor is None else cube < np.float32(floor)))
    scene.n_dim = int(np.count_nonzero(cube < DIM))
    if scene.highest > 1:
        text = f"{scene.cube_path}: values up to {scene.highest:.4g}; scoring clips reconstructions to [0, 1]"
        scene.notes.append(Fault("values above 1", f"{text}, divide all cubes by the same number"))
    scene.wavelengths = tuple(wavelengths_of(scene.cube_path, cube.shape[2]).tolist())
    return cube.mean(2)


def look(scene: Scene, floor: float | None) -> Scene:
    """Open a scene's files and return it with what was found, in a process of its own."""
    cube_luminance = rgb = None
    try:
        if scene.cube_path is not None:
            cube_luminance = look_at_cube(scene, floor)
    except (DataError, OSError, MemoryError) as error:
        add_failure(scene, scene.cube_path, error)
    try:
        if scene.rgb_path is not None:
            rgb = read_rgb(scene.rgb_path)
            scene.rgb_digest = digest(rgb)
    except (DataError, OSError, MemoryError) as error:
        add_failure(scene, scene.rgb_path, error)
    if rgb is not None and scene.size is not None and rgb.shape[:2] != scene.size:
        text = f"{scene.rgb_path}: {times(rgb.shape[:2])} pixels, but its cube has {times(scene.size)}"
        scene.errors.append(Fault("size of image and cube", f"{text}; find the right one of both"))
    elif rgb is not None and cube_luminance is not None:
        compare(scene, cube_luminance, np.float32(rgb).mean(2))
    return scene


def add_failure(scene: Scene, path: Path, error: Exception) -> None:
    """Add what came of opening a file: to the broken ones if a new copy mends it, else to the errors."""
    text = str(error)
    if text.endswith("download it again"):  # as read_cube and read_rgb say of what is cut off or garbled
        scene.broken.append(path)
    elif isinstance(error, DataError):
        scene.errors.append(Fault("contents", text))
    else:
        reason = getattr(error, "strerror", None) or "too large for the memory"
        scene.errors.append(Fault("reading", f"{path}: {reason}"))


def look_at_all(scenes: list[Scene], floor: float | None, n_workers: int) -> list[Scene]:
    """Return the scenes with what was found in them, in the same order."""
    if not scenes:
        return []
    done: dict[str, Scene] = {}

    def run(todo: list[Scene]) -> None:
        with ProcessPoolExecutor(min(n_workers, len(todo)), initializer=prepare_process) as pool:
            try:
                for future in as_completed([pool.submit(look, scene, floor) for scene in todo]):
                    scene = future.result()
                    done[scene.name] = scene
                    progress.update()
            except BrokenProcessPool:
                pass
            except BaseException:  # Ctrl-C: what has not begun is not waited for
                pool.shutdown(cancel_futures=True)
                raise

    with tqdm(total=len(scenes), desc="checking", unit="scene", dynamic_ncols=True) as progress:
        run(scenes)
        for scene in scenes:
            # a file has ended the process that opened it, and all the others; now each scene has one of its own
            if scene.name not in done:
                run([scene])
            if scene.name not in done:
                text = f"{scene.cube_path}, {scene.rgb_path}: opening them ends the process"
                advice = "download them again if they are not too large for the memory"
                scene.errors.append(Fault("reading", f"{text}; {advice}"))
                done[scene.name] = scene
    return [done[scene.name] for scene in scenes]


def check_together(scenes: list[Scene], floor: float | None, patch_size: int) -> None:
    """Add the errors that need the options or the other scenes, as the preparation would raise them."""
    kept = [scene for scene in scenes if scene.wavelengths is not None and not scene.left_out(floor)]
    bands = Counter(scene.wavelengths for scene in kept)
    votes = {one: sum(count for other, count in bands.items() if same_bands(one, other)) for one in bands}
    usual = max(votes, key=votes.get, default=())
    for scene in kept:
        if not same_bands(scene.wavelengths, usual):
            has, most = (describe_bands(np.array(wavelengths)) for wavelengths in (scene.wavelengths, usual))
            text = f"{scene.cube_path}: {has}, but {votes[usual]} of {len(kept)} scenes have {most}"
            scene.errors.append(Fault("other bands", f"{text}; all need the same wavelengths, take it away"))
        path, needed = scene.rgb_path or scene.cube_path, (6, 4) if scene.part == "Valid" else (patch_size,) * 2
        if scene.size[0] < needed[0] or scene.size[1] < needed[1]:
            text = f"{path}: {times(scene.size)} pixels; {PARTS[scene.part]} needs at least {times(needed)}"
            what = "choose a smaller --patch_size" if scene.part == "Train" else "take it away"
            scene.errors.append(Fault(f"too small for {PARTS[scene.part]}", f"{text}; {what}"))


def find_copies(scenes: list[Scene]) -> list[Fault]:
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
        advice = "validation sees what was trained on, take one away" if both else "keep one of them"
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
    """Return the different texts, the most frequent first, with their numbers if there are several."""
    counts = Counter(items)
    return shorten(
        [text if len(counts) == 1 else f"{text} ({count} scenes)" for text, count in counts.most_common()], 4
    )


def describe_part(part: str, scenes: list[Scene], floor: float | None) -> None:
    """Print a few lines on what a part holds."""
    print(f"{part}: {len(scenes)} scenes")
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
            what = "left out" if floor is None else f"raised to {floor:g}"
            print(f"  dark    {n_dark:,} of {total:,} values {limit} ({n_dark / total:.2%})")
            print(f"          in {len(dark)} of {len(read)} scenes, {what}: {shorten(scene.name for scene in dark)}")
        else:
            print(f"  dark    no values {limit}")
        dim = sum(scene.n_dim for scene in read) / total
        if floor is None and dim > 0.01:
            print(f"  dim     {dim:.1%} of the values are below {DIM:g}, where relative errors explode; consider")
            print(f"          --non_positive floor {DIM:g}, or scoring with --min_radiance")


def print_faults(word: str, faults: list[Fault], everything: bool) -> None:
    """Print errors or notes, kind by kind."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault.text)
    for kind, texts in kinds.items():
        shown = texts if everything or len(texts) <= 4 else texts[:3]
        for text in shown:
            print(f"{word}: {text}")
        if len(texts) > len(shown):
            print(f"{word}: and {len(texts) - len(shown)} more like these ({kind}); --all names them")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, look at everything, report."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data_path", type=Path, default=".", help="folder with Train_spectral, Train_RGB and the same for Valid")
    add("--patch_size", type=cli.at_least(4), default=128, help="side of a training patch in pixels")
    cli.add_non_positive(parser)
    add(
        "--num_workers",
        type=cli.at_least(1),
        default=available_cores(),
        help="processes, each with one scene in memory",
    )
    add("--all", action="store_true", help="name every file with a fault, not the first of a kind")
    args = parser.parse_args(argv)
    floor = args.floor
    if not args.data_path.is_dir():
        raise DataError(f"{args.data_path}: no such folder")

    errors: list[Fault] = []
    scenes = [scene for part in PARTS for scene in find_scenes(args.data_path, part, errors)]
    scenes = look_at_all(scenes, floor, args.num_workers)
    check_together(scenes, floor, args.patch_size)
    left = {}
    for part in PARTS:
        here = [scene for scene in scenes if scene.part == part]
        describe_part(part, here, floor)
        left[part] = sum(not scene.left_out(floor) for scene in here)
        if here and not left[part]:
            text = f"{args.data_path / f'{part}_spectral'}: every scene has values <= 0, none is left"
            errors.append(Fault("none left", f"{text}; --non_positive floor VALUE keeps them"))

    errors += [fault for scene in scenes for fault in scene.errors]
    print_faults("error", errors, args.all)
    print_faults("note", find_copies(scenes) + [fault for scene in scenes for fault in scene.notes], args.all)
    broken = [path for scene in scenes for path in scene.broken]
    if broken:
        print(f"download again: {len(broken)} broken file{'s' * (len(broken) != 1)}")
        for path in broken:
            print(f"  {path}")
    if errors or broken:
        count = len(errors) + len(broken)
        print(f"not ready: {count} error{'s' * (count != 1)}; mend, and run this again")
        sys.exit(1)
    print(f"ready: {left['Train']} training and {left['Valid']} validation scenes. Next:")
    root, keep = Path(__file__).resolve().parent.parent, "" if floor is None else f" --non_positive floor {floor:g}"
    data = shlex.quote(str(args.data_path.resolve()))
    print(f"  cd {shlex.quote(str(root / 'train'))}")
    print(f"  python train_data_preprocess.py --data_path {data} --patch_size {args.patch_size}{keep}")
    print(f"  python valid_data_preprocess.py --data_path {data}{keep}")


if __name__ == "__main__":
    cli.run(main)
