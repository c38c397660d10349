"""What is wrong with a data folder: each file is read, images are compared with cubes, scenes with each other."""

import hashlib
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from drcr.cube import DIM, check_cube, check_same_size, check_scale, describe_bands, same_bands, times
from drcr.data import PreparedFolder
from drcr.formats.mat import load_cube
from drcr.images import IMAGE_SUFFIXES, Encoding, doubt_encoding, read_image
from drcr.metrics import correlation
from drcr.utils.files import BrokenFile, DataError, and_more, list_files, name_of
from drcr.utils.parallel import prepare_process

PART_WORDS = {"Train": "training", "Valid": "validation"}

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
    decoding: str = ""
    input_encoding: str = ""

    @property
    def name(self) -> str:
        """Part and name, as Train/ARAD_1K_0001."""
        return f"{self.part}/{next(name_of(path) for path in (self.cube_path, self.rgb_path) if path)}"

    def is_skipped(self, floor: float | None) -> bool:
        """Return whether the preparation skips this scene."""
        return floor is None and self.n_dark > 0


def find_scenes(data_path: Path, part: str, errors: list[Fault], rgb_suffix: str) -> list[CheckedScene]:
    """Return the scenes of a part, including files without a partner; faults of the folders go to `errors`."""

    def report(kind: str, text: str) -> None:
        errors.append(Fault(kind, text))

    cubes = list_files(data_path / f"{part}_spectral", (".mat",), "spectral cubes", report)
    images = list_files(data_path / f"{part}_RGB", IMAGE_SUFFIXES, "RGB images", report)
    images = {name.removesuffix(rgb_suffix): path for name, path in images.items() if name.endswith(rgb_suffix)}
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
    hashed.update(np.ascontiguousarray(array).data)
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


def compare(scene: CheckedScene, cube_luminance: np.ndarray, rgb_luminance: np.ndarray) -> bool:
    """Return whether an image belongs to its cube; add an error if it cannot, a note if that cannot be decided."""
    if min(cube_luminance.shape) < MIN_SIDE:
        text = f"{scene.rgb_path}: smaller than {MIN_SIDE} pixels, too small to tell whether it belongs to its cube"
        scene.notes.append(Fault("too small to tell", text))
        return False
    cube_detail, rgb_detail = detail(cube_luminance), detail(rgb_luminance)
    for path, there in ((scene.cube_path, cube_detail), (scene.rgb_path, rgb_detail)):
        if there.std() < MIN_DETAIL:
            text = (
                f"{path}: almost no detail, too smooth to tell whether image and cube belong together; look at both"
            )
            scene.notes.append(Fault("too smooth to tell", text))
            return False
    as_it_is = correlation(cube_detail, rgb_detail)
    if as_it_is >= TURNED:
        return True
    turned = {name: correlation(cube_detail, image) for name, image in orientations(rgb_detail).items()}
    way = max(turned, key=lambda way: turned[way])
    if turned[way] > max(TURNED, as_it_is + TURNED_GAIN):
        text = (
            f"{scene.rgb_path}: matches its cube only {way}: correlation {turned[way]:.2f}, as it is {as_it_is:.2f}"
        )
        scene.errors.append(Fault("image rotated", f"{text}; rotate or mirror it"))
        return False
    if as_it_is < BELONGS:
        text = f"{scene.rgb_path}: does not belong to its cube, correlation {as_it_is:.2f}; find the correct image"
        scene.errors.append(Fault("wrong image", text))
        return False
    return True


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
    for note in stored.notes:
        scene.notes.append(Fault("reading", f"{path}: {note}"))
    if (note := check_scale(cube, path)) is not None:
        scene.notes.append(Fault("values above 1", f"{path}: {note}; divide all cubes by the same number"))
    scene.wavelengths = tuple(stored.require_wavelengths().tolist())
    return cube.mean(2)


def check_scene(scene: CheckedScene, floor: float | None, encoding: Encoding = "auto") -> CheckedScene:
    """Read a scene's files and return it with what was found. Runs in a separate process."""
    cube_luminance = rgb = image = None
    cube_path, rgb_path = scene.cube_path, scene.rgb_path
    if cube_path is not None:
        try:
            cube_luminance = check_one_cube(scene, cube_path, floor)
        except (DataError, OSError, MemoryError) as error:
            add_failure(scene, cube_path, error)
    if rgb_path is not None:
        try:
            image = read_image(rgb_path, encoding)
            rgb, scene.decoding, scene.input_encoding = image.stored, image.how, image.input_encoding
            scene.rgb_digest = digest(rgb)
        except (DataError, OSError, MemoryError) as error:
            add_failure(scene, rgb_path, error)
    if image is not None and rgb is not None and rgb_path is not None and scene.size is not None:
        try:
            check_same_size(rgb.shape, rgb_path, scene.size, cube_path)
        except DataError as error:
            scene.errors.append(Fault("size of image and cube", str(error)))
        else:
            if cube_luminance is not None:
                belongs = compare(scene, cube_luminance, np.float32(rgb).mean(2))
                if belongs and (doubt := doubt_encoding(image, cube_luminance[..., None])):
                    scene.notes.append(Fault("encoding", f"{rgb_path}: {doubt}"))
    return scene


def add_failure(scene: CheckedScene, path: Path, error: Exception) -> None:
    """Add a file that could not be read to the broken files, if a new copy would help, otherwise to the errors."""
    text = str(error)
    if isinstance(error, BrokenFile) or text.endswith("download it again"):
        scene.broken.append(path)
    elif isinstance(error, DataError):
        scene.errors.append(Fault("contents", text))
    else:
        reason = getattr(error, "strerror", None) or "does not fit into memory"
        scene.errors.append(Fault("reading", f"{path}: {reason}"))


def check_scenes(
    scenes: list[CheckedScene], floor: float | None, n_workers: int, encoding: Encoding = "auto"
) -> list[CheckedScene]:
    """Return the scenes with what was found in them, in the same order."""
    if not scenes:
        return []
    done: dict[str, CheckedScene] = {}
    # forked from a process without threads: those of this one, such as OpenCV's, do not survive a fork
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__])

    def run(todo: list[CheckedScene]) -> None:
        n_processes = min(n_workers, len(todo))
        with ProcessPoolExecutor(n_processes, mp_context=context, initializer=prepare_process) as pool:
            try:
                for future in as_completed([pool.submit(check_scene, scene, floor, encoding) for scene in todo]):
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
    kept = [
        (scene, scene.wavelengths, scene.size)
        for scene in scenes
        if scene.wavelengths is not None and scene.size is not None and not scene.is_skipped(floor)
    ]
    bands = Counter(wavelengths for _, wavelengths, _ in kept)
    votes = {one: sum(count for other, count in bands.items() if same_bands(one, other)) for one in bands}
    usual = max(votes, key=lambda one: votes[one], default=())
    encodings = Counter(scene.input_encoding for scene, _, _ in kept if scene.input_encoding)
    for scene, own, size in kept:
        if scene.input_encoding and scene.input_encoding != encodings.most_common(1)[0][0]:
            text = f"{scene.rgb_path}: {scene.decoding}, unlike most images"
            scene.errors.append(Fault("mixed encodings", f"{text}; use --encoding auto"))
        if not same_bands(own, usual):
            has, most = (describe_bands(np.array(wavelengths)) for wavelengths in (own, usual))
            text = f"{scene.cube_path}: {has}, but {votes[usual]} of {len(kept)} scenes have {most}"
            scene.errors.append(Fault("other bands", f"{text}; all need the same wavelengths; remove it"))
        path, needed = scene.rgb_path or scene.cube_path, (6, 4) if scene.part == "Valid" else (patch_size,) * 2
        if size[0] < needed[0] or size[1] < needed[1]:
            text = f"{path}: {times(size)} pixels; {PART_WORDS[scene.part]} needs at least {times(needed)}"
            what = "choose a smaller --patch_size" if scene.part == "Train" else "remove it"
            scene.errors.append(Fault(f"too small for {PART_WORDS[scene.part]}", f"{text}; {what}"))


def check_prepared(folder: Path) -> list[Fault]:
    """Read a prepared folder, and compare each scene with its checksum; return an error for each that differs."""
    try:
        scenes = PreparedFolder(folder).scenes
    except DataError as error:
        return [Fault("prepared data", str(error))]
    errors = []
    for scene in tqdm(scenes, desc=f"checking {folder.name}", unit="scene", dynamic_ncols=True):
        try:
            scene.verify()
        except DataError as error:
            errors.append(Fault("prepared data", str(error)))
    return errors


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
        notes.append(Fault(kind, f"{and_more(names, 3)}: the same {' and '.join(what)}; {advice}"))
    return sorted(notes, reverse=True)
