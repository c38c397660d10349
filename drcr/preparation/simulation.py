"""Simulated hyperspectral scenes: dead leaves of measured reflectances under measured light.

The dead leaves model (Lee, Mumford & Huang, "Occlusion models for natural images", 2001) covers the image with
random shapes that hide one another, their sizes power-law distributed; its images have the scale invariance and
the edges of natural ones.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from drcr.cube import WAVELENGTHS
from drcr.light import lamp
from drcr.utils.extras import needs
from drcr.utils.files import DataError


def reflectances() -> np.ndarray:
    """Return the 99 CIE 2017 colour samples and the 24 ColorChecker patches: (123, 31), 400-700 nm, in [0, 1]."""
    with needs("simulation", "measured reflectances"):
        import colour  # a second; chosen for its measured data: CIE 2017 samples, ColorChecker, illuminants
        from colour.quality.cfi2017 import load_TCS_CIE2017

    samples = load_TCS_CIE2017(colour.SpectralShape(380, 780, 5))
    checker = colour.SDS_COLOURCHECKERS["ColorChecker N Ohta"].values()
    curves = [np.interp(WAVELENGTHS, samples.wavelengths, curve) for curve in samples.values.T]
    curves += [np.interp(WAVELENGTHS, patch.wavelengths, patch.values) for patch in checker]
    return np.stack(curves)


class Library:
    """Measured reflectances from which simulated scenes are made: one or more sets, each of equal chance.

    Neighbours within a set are often much alike. So a set is cut into `BLOCKS` blocks of neighbours; a block is drawn
    first, then one of its rows. Every fifth block is kept for validation, so that both parts share no neighbours.
    """

    BLOCKS = 100

    def __init__(self, sets: list[np.ndarray]) -> None:
        """`sets`: each (n, 31) at 400-700 nm, in [0, 1]."""
        self.sets = sets

    def draw(self, rng: np.random.Generator, count: int, part: str) -> np.ndarray:
        """Return `count` reflectances (count, 31) of a part, Train or Valid."""
        rows = np.empty((count, len(WAVELENGTHS)))
        chosen = rng.integers(len(self.sets), size=count)
        for i, curves in enumerate(self.sets):
            edges = np.linspace(0, len(curves), min(self.BLOCKS, len(curves)) + 1).astype(int)
            blocks = np.arange(len(edges) - 1)
            blocks = blocks[blocks % 5 == 4] if part == "Valid" else blocks[blocks % 5 != 4]
            block = rng.choice(blocks, np.count_nonzero(chosen == i))
            rows[chosen == i] = curves[rng.integers(edges[block], edges[block + 1])]
        return rows


def read_library(sources: list[str]) -> Library:
    """Return the reflectances of the sources, for `SceneModel`. Raises DataError if one is missing, or no such table.

    A source is "luxpy", for the 114,120 and 4,880 reflectances of the package of that name; or a CSV file with a
    header line: the wavelength in nm (rising, 400 to 700 or more), then a column for each reflectance, from 0 to 1.
    """
    sets: list[np.ndarray] = []
    for source in sources:
        if source == "luxpy":
            sets += [_at_bands(table[0], table[1:], source) for table in _luxpy_tables()]
            continue
        try:
            table = np.loadtxt(source, delimiter=",", skiprows=1, ndmin=2, encoding="utf-8-sig").T
        except FileNotFoundError as error:
            raise DataError(f"{source}: no such file") from error
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{source}: not a table of numbers with commas between, below a header line") from error
        sets.append(_at_bands(table[0], table[1:], source))
    return Library(sets)


def _luxpy_tables() -> list[np.ndarray]:
    """Return luxpy's two largest tables of reflectances; row 0 holds the wavelengths."""
    package = importlib.util.find_spec("luxpy")  # found, not imported: its data are all that is needed
    if package is None or not package.submodule_search_locations:
        raise DataError("--reflectances luxpy needs luxpy (licence: GPLv3): pip install 'drcr[reflectances]'")
    folder = Path(next(iter(package.submodule_search_locations))) / "data/rfls"
    tables = []
    for name in ("capbone_100k_rfls.npz", "IESTM30_15_R4880.npz"):
        try:
            with np.load(folder / name) as file:
                tables.append(next(iter(file.values())))
        except (OSError, ValueError, StopIteration) as error:
            raise DataError(f"{folder / name}: missing or damaged; install luxpy again") from error
    return tables


def _at_bands(wavelengths: np.ndarray, curves: np.ndarray, source: str) -> np.ndarray:
    """Return reflectances (n, 31) at 400-700 nm. Raises DataError if they do not cover that, or are none."""
    if len(curves) < 5 or not (np.diff(wavelengths) > 0).all() or wavelengths[0] > 400 or wavelengths[-1] < 700:
        raise DataError(f"{source}: needs rising wavelengths from 400 to 700 nm, and 5 reflectances or more")
    if not (curves.min() >= 0 and curves.max() <= 1.1):
        raise DataError(
            f"{source}: reflectances from 0 to 1 are needed; they are {curves.min():g} to {curves.max():g}"
        )
    return np.stack([np.interp(WAVELENGTHS, wavelengths, curve) for curve in curves]).clip(0, 1)


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> np.ndarray:
    """Return noise (H, W) with a power spectrum 1/f^exponent, mean 0, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * frequency ** (-exponent / 2), shape)
    return (noise - noise.mean()) / noise.std()


@dataclass(frozen=True)
class SceneModel:
    """The parameters of simulated scenes.

    Fixed are the kinds of shapes (ellipses, diamonds, rounded rectangles, up to twice as long as wide) and the range
    of their albedos (0.3 to 1).

    Attributes
    ----------
    size : (H, W) in pixels
    radii : smallest and largest shape in pixels, drawn with density r^-`exponent`
    exponent : see `radii`
    texture : strength of the patterns inside shapes
    shading : strength of the light's fall-off over a shape and over the scene
    illuminants : CIE names; each scene's light is a mixture of two of them
    blur : sigma of the lens in pixels
    flare : stray light as a part of the scene's mean, which also keeps every value above 0
    library : measured reflectances; None: the 123 of `reflectances`
    """

    size: tuple[int, int] = (482, 512)
    radii: tuple[float, float] = (2, 240)
    exponent: float = 3
    texture: float = 1
    shading: float = 1
    illuminants: tuple[str, ...] = ("A", "D50", "D55", "D65", "D75")
    blur: float = 0.7
    flare: float = 0.03
    library: Library | None = None

    def leaves(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the scene's geometry: which shape each pixel (H, W) shows, and its shading in (0, 1.5]."""
        height, width = self.size
        label, shade = np.full(self.size, -1), np.ones(self.size)
        low, high = (radius ** (1 - self.exponent) for radius in self.radii)
        # From front to back, so that each pixel is set once; the last gaps show one shape behind all others.
        count, gaps = 0, height * width
        while gaps > 0.002 * height * width:
            # inverse of the power law's cumulative distribution
            radius = (low + rng.random() * (high - low)) ** (1 / (1 - self.exponent))
            y, x = rng.uniform(-radius, height + radius), rng.uniform(-radius, width + radius)
            aspect, angle, power = rng.uniform(0.5, 1), rng.uniform(0, np.pi), rng.choice([2, 2, 2, 1.3, 6])
            slope, curvature = rng.normal(0, 0.15 * self.shading, 2), rng.uniform(0, 0.5 * self.shading)
            reach = radius * 1.42  # corners of a square
            window = np.s_[
                max(0, int(y - reach)) : max(0, int(y + reach) + 2),
                max(0, int(x - reach)) : max(0, int(x + reach) + 2),
            ]
            seen = label[window]
            if seen.size == 0:
                continue
            rows = (np.arange(seen.shape[0]) + window[0].start - y)[:, None] / radius
            columns = (np.arange(seen.shape[1]) + window[1].start - x)[None] / radius
            u = rows * np.cos(angle) + columns * np.sin(angle)
            v = (columns * np.cos(angle) - rows * np.sin(angle)) / aspect
            inside = (seen < 0) & (np.abs(u) ** power + np.abs(v) ** power <= 1)
            seen[inside] = count
            light = 1 + slope[0] * u + slope[1] * v - curvature * np.minimum(u**2 + v**2, 1)
            shade[window][inside] = np.clip(light, 0.2, 1.5)[inside]
            gaps -= np.count_nonzero(inside)
            count += 1
        label[label < 0] = count
        return label, shade

    def render(self, rng: np.random.Generator, part: str = "Train") -> np.ndarray:
        """Return a scene: radiance (H, W, 31), float32, in (0, 1], its largest value 1."""
        return self.render_lit(rng, part)[0]

    def render_lit(self, rng: np.random.Generator, part: str = "Train") -> tuple[np.ndarray, np.ndarray]:
        """Return a scene as `render` does, and its light (31,), relative.

        `part`, Train or Valid: which blocks of the library its reflectances are drawn from.
        """
        label, shade = self.leaves(rng)
        n = label.max() + 1
        # each shape: a pattern of two measured reflectances, darker or lighter as a whole
        if self.library is None:
            known = reflectances()
            first, second = known[rng.integers(len(known), size=(2, n))]
        else:
            first, second = (self.library.draw(rng, n, part) for _ in range(2))
        albedo = np.exp(rng.uniform(np.log(0.3), 0, n))
        patterns = np.stack([fractal_noise(rng, self.size, exponent) for exponent in (1, 1.5, 2, 2.5, 3, 3)])
        rows, columns = np.indices(self.size)
        spectral, tonal = patterns[rng.integers(len(patterns), size=(2, n))[:, label], rows, columns]
        mix = rng.uniform(0, 0.5, n)[label] + rng.exponential(0.1 * self.texture, n)[label] * spectral
        tone = np.exp(rng.exponential(0.06 * self.texture, n)[label] * np.clip(tonal, -3, 3))
        # light that changes slowly over the scene, between a half and one and a half
        light = np.exp(0.25 * self.shading * np.clip(fractal_noise(rng, self.size, 4), -2, 2))
        amount = (albedo[label] * tone * shade * light)[..., None]
        mix = np.clip(mix, 0, 1)[..., None]

        lamps = [lamp(name) for name in rng.choice(self.illuminants, 2)]
        power = lamps[0] + rng.random() * (lamps[1] - lamps[0])
        cube = (first[label] * (1 - mix) + second[label] * mix) * amount * power
        if self.blur:
            cube = gaussian_filter(cube, (self.blur, self.blur, 0))
        cube += self.flare * cube.mean((0, 1))
        return (cube / cube.max()).astype(np.float32), power
