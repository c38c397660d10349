"""A network as a correction of what the camera measured: base map, brightness, correction, data consistency.

A network from RGB to spectra need not return spectra that give the image back. Here it corrects a map per pixel, and
the result is held to the image::

    lit  = brightness(rgb) * rgb                              the image, as bright as its scene probably was
    cube = max(floor, base(lit)) * exp(network(lit))
    cube = max(floor, consistency(cube, lit))                 the camera that looks at the cube sees `lit` again

- Base: the root-polynomial map of degree 4, which scales with exposure (Finlayson, Mackiewicz and Hurlbert, "Color
  correction using root-polynomial regression", IEEE Transactions on Image Processing 2015).
- Brightness: an exposed image does not tell how bright its scene was. A ridge regression on statistics of the image
  that do not depend on exposure gives the most probable value.
- Consistency: of the spectra that the camera sees as a pixel's colour, the one nearest to the network's (Lin and
  Finlayson, "Physically plausible spectral reconstruction", Sensors 2020). Theirs is the nearest in the space of
  spectra and may be negative. Here a spectrum is multiplied by exp(a sum of three smooth functions), so it stays
  positive. A dark pixel's colour is mostly noise: how far a pixel is moved depends on its brightness, and is trained.

All of it but the brightness is per pixel. Colours and bands are the last dimension, except in `forward`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from drcr.camera import responses
from drcr.images import InputEncoding
from drcr.networks import Bare

Consistency = Literal["trained", "none", "half", "full"]
"""How far a result is held to the image: as trained, not, halfway (of the logarithm) or entirely."""

Pairs = Iterable[tuple[Tensor, Tensor]]
"""Images (3, H, W) and their cubes (bands, H, W)."""

_TERMS = "R G B RG GB RB RGG GBB RBB RRG GGB RRB RGB RRRG RRRB GGGR GGGB BBBR BBBG RRGB GGRB BBRG"
EXPONENTS = [[term.count(channel) / len(term) for channel in "RGB"] for term in _TERMS.split()]
"""The powers of R, G and B in the 22 terms of the root-polynomial of degree 4; each row sums to 1."""
DARKEST = 1e-4
"""Smaller values of the lit image count as this: below it are only the zeros of 8 bits."""
KNOTS = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
"""Brightness at which the trained strength of the consistency is kept; between them it is interpolated."""
CLIPPED = 0.98
"""A pixel with a channel above this part of the image's largest value may be clipped."""
RAMP = 0.02
"""Of the share of clipped pixels: from this much below CLIPPED to as much above, pixels count more and more."""
PILE, FEW = (0.5, 0.7), 0.0005
"""Clipped pixels pile up at the largest value. An image is clipped if of its pixels within 4% of that value at least
the second part is within 2%, and is not up to the first (an even distribution); less than FEW of all pixels are no
pile. Of 24 held-out images, the 20 that are clipped have 0.74 to 0.92, the others 0.3 or less."""
FAINT, PALE = 0.02, 0.2
"""Parts of an image's mean: of pixels darker than the first the noise has the colour, and no image is paler than the
second, or its brightness would be more than what the training images tell."""
DIM = 0.02
"""Pixels below this part of the largest value do not tell the brightness of a scene."""
JITTER = 0.3
"""In training the true brightness is given, times exp of normal noise of this deviation: the rule errs, too."""
RIDGE_BASE, RIDGE_RULE = 1e-6, 0.05
"""Ridge penalties as parts of the mean squared term."""
MANY_PIXELS = 1_000_000
"""No more of a cube's pixels tell its brightness."""
ROWS = 32
"""Rows of a finished cube that are held at a time."""
PIXELS_IN_CACHE = 8192
"""So many pixels are finished at a time on strips."""
PIXEL_STEP = 7
"""Of each training image, every so many-th pixel is used to fit the base."""


def root_polynomial(rgb: Tensor) -> Tensor:
    """Return the terms (..., 22) of the root-polynomial of degree 4 of RGB (..., 3)."""
    return (rgb.clamp_min(DARKEST).log() @ rgb.new_tensor(EXPONENTS).T).exp()


def image_statistics(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of images, and what else tells of their scenes' brightness and does not depend on exposure.

    Parameters
    ----------
    rgb : Tensor
        (N, pixels, 3), 0 or more.

    Returns
    -------
    tuple of Tensor
        (N,), and (N, 7): logarithms of the geometric and of the quadratic mean, relative to the mean; the root of the
        share of pixels that may be clipped; the logarithm of the largest value, relative to the mean; how colourful
        pixels are, as the mean logarithm of a pixel's largest channel over its smallest, and as the logarithm of
        their root mean square difference, relative to the mean; 1. Of several sets of statistics these predicted
        the scenes left out best.
    """
    grey, top, bottom = rgb.mean(2), rgb.amax(2), rgb.amin(2)
    mean, peak = grey.mean(1).clamp_min(1e-12), rgb.amax((1, 2))
    # a ramp, not a step: else a file of 8 bits and one of 10 would differ by how many levels lie above the step
    clipped = ((top / peak.clamp_min(1e-12)[:, None] - CLIPPED) / (2 * RAMP) + 0.5).clamp(0, 1)
    grey, top, bottom = (values / mean[:, None] for values in (grey, top, bottom))
    grey = grey.clamp_min(0.003)
    columns = [
        grey.log().mean(1),
        (grey**2).mean(1).log(),
        clipped.mean(1).sqrt(),
        (peak / mean).clamp_min(1).log(),  # 1 at least, but for a black image
        ((top + FAINT) / (bottom + FAINT)).log().mean(1),
        (((top - bottom) ** 2).mean(1).sqrt() + PALE).log(),
        torch.ones_like(mean),
    ]
    return mean, torch.stack(columns, 1)


def piled_up(top: Tensor, peak: Tensor) -> Tensor:
    """Return how surely images are clipped: (N,) in [0, 1].

    `top`: the largest channel of each pixel, (N, H, W); `peak`: the largest value of each image, (N,).
    """
    relative = top / peak.clamp_min(1e-12)[:, None, None]
    near, nearer = ((relative >= part).to(top).mean((1, 2)) for part in (2 * CLIPPED - 1, CLIPPED))
    return ((nearer / (near + FEW) - PILE[0]) / (PILE[1] - PILE[0])).clamp(0, 1)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return x (3, ...) of the equations matrix (3, 3, ...) x = right (3, ...), by the adjugate."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind() for row in matrix.unbind())
    p, q, r = right.unbind()
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    x = first * p + (c * h - b * i) * q + (b * f - c * e) * r
    y = second * p + (a * i - c * g) * q + (c * d - a * f) * r
    z = third * p + (b * g - a * h) * q + (a * e - b * d) * r
    return torch.stack([x, y, z]) / (a * first + b * second + c * third)


class Correction(nn.Module):
    """A network (N, 3, H, W) -> (N, bands, H, W) as a correction of a base map. The network is any.

    Attributes
    ----------
    consistency : {"trained", "none", "half", "full"}
        How far results are held to the image.
    camera : str
        Which camera they are held to, in words.
    """

    network: Any
    base: Tensor
    rule: Tensor
    floor: Tensor
    curves: Tensor
    responses: Tensor

    def __init__(self, network: nn.Module, wavelengths: list[float], consistency: Consistency = "trained") -> None:
        """Wrap `network`. Camera, base and brightness rule come from `set_camera` and `fit`, or from a checkpoint."""
        super().__init__()
        self.network = network
        self.wavelengths: list[float] | None = wavelengths
        self.input_encoding: InputEncoding = getattr(network, "input_encoding", "linear")
        self.consistency: Consistency = consistency
        self.camera = ""
        bands = len(wavelengths)
        self.register_buffer("base", torch.zeros(len(EXPONENTS), bands))
        self.register_buffer("rule", torch.zeros(7))
        self.register_buffer("floor", torch.zeros(()))
        self.register_buffer("curves", torch.zeros(bands, 3))
        self.register_buffer("responses", torch.eye(3))
        position = torch.linspace(0, 1, bands)[:, None]
        self.shapes = nn.Parameter(torch.exp(-(((position - torch.tensor([0.15, 0.5, 0.8])) / 0.22) ** 2)))
        self.strength = nn.Parameter(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 2.0]))
        self.clipped_strength = nn.Parameter(torch.tensor(0.0))
        self.highlights = nn.Parameter(torch.zeros(3))

    @property
    def architecture(self) -> dict[str, Any]:
        """The network's."""
        return getattr(self.network, "architecture", {})

    def own_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the wrapped network: tensors, and the camera in words."""
        own = {name: values for name, values in self.state_dict().items() if not name.startswith("network.")}
        return own | {"camera": self.camera, "consistency": self.consistency}

    def load_own_state(self, state: Any) -> None:
        """Take what `own_state` returned. Raises ValueError if it is something else."""
        expected = self.own_state()
        if not isinstance(state, dict) or state.keys() != expected.keys():
            raise ValueError("its correction is damaged")
        for name, values in expected.items():
            given = state[name]
            if name == "rule" and isinstance(given, Tensor) and given.shape == (5,):  # before colour was a part of it
                given = torch.cat([given[:4], given.new_zeros(2), given[4:]])
            if isinstance(values, Tensor):
                if not isinstance(given, Tensor) or given.shape != values.shape or not given.isfinite().all():
                    raise ValueError(f"its correction ({name}) is damaged")
                values.copy_(given)
            elif not isinstance(given, str):
                raise ValueError(f"its correction ({name}) is damaged")
        self.camera, self.consistency = state["camera"], state["consistency"]
        if self.consistency not in get_args(Consistency):
            raise ValueError("its correction (consistency) is damaged")

    @torch.no_grad()
    def learn_from(self, other: "Correction") -> None:
        """Take from another correction what training finds beside the network."""
        for name, own in self.named_parameters(recurse=False):
            learnt = getattr(other, name)
            if own.shape == learnt.shape:  # `shapes` depends on the number of bands
                own.copy_(learnt)

    def set_camera(self, source: str | Path, gains: tuple[float, float, float] | None = None) -> None:
        """Hold cubes to another camera; `source` and `gains` as `drcr.camera.responses` takes them."""
        curves, matrix = responses(source, gains, np.array(self.wavelengths))
        self.curves.copy_(torch.from_numpy(curves))
        self.responses.copy_(torch.from_numpy(matrix))
        self.camera = Path(source).name

    def describe(self) -> str:
        """Return in words how far cubes are held to which camera."""
        return f"consistency {self.consistency}, camera {self.camera}"

    # ---- the image

    def brightness(self, rgb: Tensor) -> Tensor:
        """Return the factor (N,) from images (N, pixels, 3) to their scenes, by the rule.

        No scene reflects more than all light, whatever the rule makes of an image unlike those it was fitted to.
        """
        mean, statistics = image_statistics(rgb)
        return (statistics @ self.rule).clamp_max(0).exp() / mean

    def true_brightness(self, rgb: Tensor, cube: Tensor) -> Tensor:
        """Return the factor (N,) from images (N, pixels, 3) to their ground truth (N, pixels, bands)."""
        top = rgb.amax(2)
        peak = top.amax(1, keepdim=True)
        used = ((top < CLIPPED * peak) & (top > DIM * peak)).to(rgb)
        seen, image = (cube @ self.curves)[..., 1], (rgb @ self.responses)[..., 1]
        return (seen * used).sum(1).clamp_min(1e-6) / (image * used).sum(1).clamp_min(1e-6)

    def light(self, rgb: Tensor, factor: Tensor | None = None, patches: bool = False) -> tuple[Tensor, Tensor]:
        """Return images (N, H, W, 3) as bright as their scenes, and where they are not clipped: (N, H, W), 0 or 1.

        A clipped pixel is brighter than it seems: by how much is trained, for one, two and three clipped channels.
        Of patches the full scale is known: it is 1. Of images it is the largest value, if pixels pile up there.
        """
        peak = rgb.new_ones(len(rgb)) if patches else rgb.amax((1, 2, 3))
        piled = 1.0 if patches else piled_up(rgb.amax(3), peak)[:, None, None]
        factor = self.brightness(rgb.flatten(1, 2)) if factor is None else factor
        clipped = (rgb >= CLIPPED * peak[:, None, None, None]).sum(3)
        gain = (piled * torch.cat([self.highlights.new_zeros(1), self.highlights])[clipped]).exp()
        return rgb * (factor[:, None, None] * gain)[..., None], 1 - piled * (clipped > 0).to(rgb)

    # ---- the cube

    def finish(self, correction: Tensor, lit: Tensor, unclipped: Tensor) -> Tensor:
        """Return spectra (..., bands) of the network's output (..., bands) and what `light` returned."""
        base = (root_polynomial(lit) @ self.base).clamp_min(self.floor)
        spectra = base * correction.clamp(-4, 4).exp()
        if self.consistency != "none":
            spectra = self.hold(spectra, lit, unclipped)
        return spectra.clamp_min(self.floor)

    def hold(self, spectra: Tensor, lit: Tensor, unclipped: Tensor) -> Tensor:
        """Return spectra (..., bands), multiplied by smooth functions until the camera sees them as `lit` (..., 3).

        Newton's method on the logarithms of what the camera sees: two steps come close, six are exact.
        """
        seen_and_slopes = torch.cat([self.curves, (self.curves[:, :, None] * self.shapes[:, None]).flatten(1)], 1)
        goal = (lit @ self.responses).clamp_min(DARKEST).log().movedim(-1, 0)
        regular = 1e-4 * torch.eye(3, dtype=lit.dtype, device=lit.device).view(3, 3, *[1] * (goal.ndim - 1))
        for i in range(6 if self.consistency == "full" else 2):
            seen = (spectra @ seen_and_slopes).clamp_min(1e-9).movedim(-1, 0).contiguous()
            missing = goal - seen[:3].log()
            if i == 0 and self.consistency != "full":
                part = self.part(goal[1], unclipped)
                goal, missing = goal - (1 - part) * missing, part * missing
            slopes = seen[3:].unflatten(0, (3, 3)) / seen[:3, None]
            step = solve(slopes + regular, missing).clamp(-2, 2)
            spectra = spectra * (step.movedim(0, -1) @ self.shapes.T).exp()
        return spectra

    def part(self, log_brightness: Tensor, unclipped: Tensor) -> Tensor:
        """Return how far pixels are held to the image: (...) in [0, 1]."""
        if self.consistency == "half":
            return torch.full_like(log_brightness, 0.5)
        knots = log_brightness.new_tensor(KNOTS).log()
        place = (log_brightness[..., None] - knots[:-1]) / knots.diff()
        strength = self.strength[0] + place.clamp(0, 1) @ self.strength.diff()  # ramps add up to lines between knots
        where_clipped = self.clipped_strength.sigmoid()
        return strength.sigmoid() * (where_clipped + (1 - where_clipped) * unclipped)

    def forward(self, rgb: Tensor, factor: Tensor | None = None) -> Tensor:
        """RGB (N, 3, H, W), at any exposure, -> radiance (N, bands, H, W).

        `factor` (N,), from images to scenes, is given in training alone.
        """
        with torch.autocast(rgb.device.type, enabled=False):
            lit, unclipped = self.light(rgb.float().permute(0, 2, 3, 1), factor, patches=factor is not None)
        correction = self.network(lit.permute(0, 3, 1, 2))
        with torch.autocast(rgb.device.type, enabled=False):
            return self.finish(correction.float().permute(0, 2, 3, 1), lit, unclipped).permute(0, 3, 1, 2)

    def for_strips(self, rgb: Tensor) -> tuple[Tensor, Callable[[Tensor, int], Tensor]]:
        """Return what the network gets of an image (H, W, 3), and what makes rows of a cube of rows of its output.

        That takes the network's output (rows, W, bands) and the number of its first row.
        """
        lit, unclipped = (values[0] for values in self.light(rgb[None]))
        at_once = max(1, PIXELS_IN_CACHE // rgb.shape[1])

        def finish(output: Tensor, top: int) -> Tensor:
            for part in output.split(at_once):
                rows = slice(top, top + len(part))
                part.copy_(self.finish(part, lit[rows], unclipped[rows]))
                top += len(part)
            return output

        return lit, finish

    def hold_cube(self, cube: Tensor, rgb: Tensor) -> None:
        """Hold a cube (H, W, bands) of any network to its image (H, W, 3), in place, at the cube's own brightness."""
        step = max(1, round((rgb.shape[0] * rgb.shape[1] / MANY_PIXELS) ** 0.5))
        few = (values[::step, ::step].flatten(0, 1)[None] for values in (rgb, cube))
        lit, unclipped = (values[0] for values in self.light(rgb[None], self.true_brightness(*few)))
        for top in range(0, len(cube), ROWS):
            rows = slice(top, top + ROWS)
            cube[rows] = self.hold(cube[rows].clamp_min(0).contiguous(), lit[rows], unclipped[rows])

    # ---- training

    def training_factor(self, rgb: Tensor, cube: Tensor, noise: Tensor) -> Tensor:
        """Return the factor (N,) for patches (N, 3, h, w) of which the rule, made for images, knows too little.

        `noise` (N,): normal, as the rule will err.
        """
        return self.true_brightness(rgb.flatten(2).mT, cube.flatten(2).mT) * (JITTER * noise).exp()

    @torch.no_grad()
    def fit(self, pairs: Pairs, scenes: Pairs, floor: float) -> None:
        """Fit base and brightness rule, once the camera is set.

        Parameters
        ----------
        pairs : iterable of (rgb, cube)
            (3, H, W) and (bands, H, W): training images, for the base.
        scenes : iterable of (rgb, cube)
            The same for the rule: whole images, exposed as those that will be reconstructed.
        floor : float
            The smallest value of the cubes.
        """
        self.floor.fill_(floor)
        n = len(EXPONENTS)
        normal = torch.zeros(n, n + self.base.shape[1], dtype=torch.float64)
        for rgb, cube in pairs:
            x, y = (values.flatten(1)[:, ::PIXEL_STEP].T for values in (rgb, cube))
            lit = self.true_brightness(x[None], y[None]) * x
            top = x.amax(1)
            bright = (lit @ self.responses)[:, 1]
            used = (top < CLIPPED * x.max()) & (top > DIM * x.max())
            weight = used[:, None] / (bright[:, None] + DIM)  # relative errors count
            terms = (root_polynomial(lit) * weight).double()
            normal += terms.T @ torch.cat([terms, (y * weight).double()], 1)
        penalty = RIDGE_BASE * normal.diagonal().mean() * torch.eye(n, dtype=torch.float64)
        self.base.copy_(torch.linalg.solve(normal[:, :n] + penalty, normal[:, n:]))
        self._fit_rule(scenes)

    def _fit_rule(self, scenes: Pairs) -> None:
        known, wanted = [], []
        for rgb, cube in scenes:
            x, y = (values.flatten(1).T[None] for values in (rgb, cube))
            mean, statistics = image_statistics(x)
            known.append(statistics[0, :-1].double())
            wanted.append((self.true_brightness(x, y) * mean).log()[0].double())
        x, y = torch.stack(known), torch.stack(wanted)
        centre, spread = x.mean(0), x.std(0, correction=0) + 1e-9
        z = (x - centre) / spread
        penalty = RIDGE_RULE * len(z) * torch.eye(z.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(z.T @ z + penalty, z.T @ (y - y.mean())) / spread
        constant = y.mean() - centre @ weights
        self.rule.copy_(torch.cat([weights, constant[None]]))


Network = Bare | Correction
"""What a checkpoint holds."""


def network_of(model: nn.Module) -> Any:
    """Return the network in a correction, or the network itself."""
    return model.network if isinstance(model, Correction) else model
