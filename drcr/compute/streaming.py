"""The forward pass of DRCR Net for reconstruction: fast, and in bounded memory whatever the image's size.

Rows stream through the layers. A feature map is an iterator of strips of full-width rows, top to bottom. A layer
takes such iterators and returns one; it reads one strip ahead, because a 3x3 kernel needs a row of the next strip.
`tee` keeps what the skip connections need later. So nothing at a strip's edge is approximate, and only a few strips
of each layer exist at a time. Only the CRMs' averages need the whole image: the blocks run one after the other, and
one feature map is kept between them. Nothing is computed twice except a few rows where sections meet (sections.py).

3x3 convolutions are computed by Winograd F(6,3) (winograd.py) where that is faster.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drcr.compute.sections import Piece, Section, divide, run_sections, with_margin
from drcr.compute.winograd import N_PARTS, TILE, convolve, join, kernels, scratch, split
from drcr.model import DRCR, SLOPE, DRCRBlock, TwoKernels

Item = TypeVar("Item")
Edge = Literal["zero", "reflect", "replicate"]
FIRST_MARGIN, MARGIN = 20, 8
"""Rows beyond its own that a section needs in a sweep, in multiples of 4.

First: the quarter scale sees 12 rows, NPM's last convolution, stem and tail see 5. Then: block and tail see 8.
"""
ROWS = TILE
"""Strips are stored in whole multiples of this, and auto chooses multiples of it."""
FIRST_ROWS = 12
"""The same in the first sweep, where NPM's pooling needs multiples of 4."""


def as_image(rows: Tensor) -> Tensor:
    """Return a map (rows, W, C) as (1, C, rows, W): same memory."""
    return rows.permute(2, 0, 1)[None]


def as_strip(image: Tensor) -> Tensor:
    """(1, C, rows, W) -> (rows, W, C), contiguous: the same memory if that was channels last."""
    return image[0].permute(1, 2, 0).contiguous()


@dataclass
class Strip:
    """Some rows of a feature map.

    `data` is (1 + rows + fill + 1, W, C): a row of halo above, the rows, up to 5 rows of fill to a multiple of 6,
    a row of halo below. Halo and fill are undefined until `with_halo` sets them.
    """

    data: Tensor
    rows: int

    @classmethod
    def empty(cls, rows: int, width: int, channels: int, like: Tensor) -> "Strip":
        """Return a strip of the given size, undefined, of the type and on the device of `like`."""
        return cls(like.new_empty(rows + -rows % ROWS + 2, width, channels), rows)

    @classmethod
    def of(cls, values: Tensor) -> "Strip":
        """Return a strip with these values (rows, W, C), copied."""
        rows, width, channels = values.shape
        strip = cls.empty(rows, width, channels, values)
        strip.inner.copy_(values)
        return strip

    @property
    def inner(self) -> Tensor:
        """The rows themselves, (rows, W, C)."""
        return self.data[1 : self.rows + 1]


Strips = Iterator[Strip]


def tee(items: Iterator[Item]) -> list[Iterator[Item]]:
    """Return two iterators over one; items are kept until both have taken them.

    itertools.tee does the same, but frees its items only 57 at a time, which is too much memory here.
    """
    queues: tuple[deque[Item], deque[Item]] = (deque(), deque())

    def branch(queue: deque[Item]) -> Iterator[Item]:
        while True:
            if not queue:
                for item in islice(items, 1):
                    queues[0].append(item)
                    queues[1].append(item)
                    del item  # a strip is megabytes: no reference may outlive its use
                if not queue:
                    return
            yield queue.popleft()

    return [branch(queue) for queue in queues]


def with_halo(strips: Strips, edge: Edge) -> Strips:
    """Set each strip's halo to its neighbours' rows; at the image's edges set halo and fill by the padding `edge`."""

    def outside(data: Tensor, beyond: int | slice, last: int, next_to_last: int) -> None:
        match edge:
            case "zero":
                data[beyond] = 0
            case "reflect":
                data[beyond] = data[next_to_last]
            case "replicate":
                data[beyond] = data[last]

    waiting = [next(strips)]
    outside(waiting[0].data, 0, 1, 2)
    for below in strips:
        above = waiting.pop()
        above.data[above.rows + 1 :] = below.data[1]
        below.data[0] = above.data[above.rows]
        waiting = [below, above]
        del above, below
        yield waiting.pop()
    last = waiting.pop()
    outside(last.data, slice(last.rows + 1, None), last.rows, last.rows - 1)
    yield last


class Weights:
    """A kernel (C out, C in, k, k), and its eight of 1x3 for F(6,3).

    For direct convolution it is in the memory order that oneDNN wants. That order depends on the size of the input;
    oneDNN converts weights in any other order again at every call.
    """

    def __init__(self, weight: Tensor, winograd: bool, dtype: torch.dtype) -> None:
        """Keep `weight`; for direct convolution it is packed when the first input of each size comes."""
        self.weight, self.dtype = weight, dtype
        self.kernels = kernels(weight).to(dtype) if winograd else None
        self._packed: dict[tuple[int, int], Tensor] = {}

    def for_size(self, height: int, width: int, padding: list[int]) -> Tensor:
        """Return the kernel for inputs (C in, height, width)."""
        if (height, width) not in self._packed:
            self._packed[height, width] = self._pack([1, self.weight.shape[1], height, width], padding)
        return self._packed[height, width]

    def forget(self) -> None:
        """Free the packed kernels: images of another size follow."""
        self._packed = {}

    def _pack(self, size: list[int], padding: list[int]) -> Tensor:
        weight = self.weight.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if weight.is_cuda or not torch.backends.mkldnn.is_available():
            return weight
        return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, [1, 1], [1, 1], 1, size)


class Convolution:
    """A convolution of the network with its LeakyReLU, applied to strips.

    With several inputs it is the convolution of their concatenation, which is never made.
    """

    def __init__(
        self, conv: nn.Conv2d, winograd: bool, dtype: torch.dtype, n_inputs: int = 1, slope: float | None = None
    ) -> None:
        """Prepare the weights of `conv` for strips of type `dtype`; `winograd`: use F(6,3). `slope`: LeakyReLU's."""
        three = conv.kernel_size == (3, 3)
        self.reflect = conv.padding_mode == "reflect"
        self.winograd = winograd and three
        # the halo's rows are computed, too, so that the result has room for one; they are overwritten
        self.padding = [int(three), int(three and not self.reflect)]
        self.dtype, self.slope, self.out_channels = dtype, slope, conv.out_channels
        self.weights = [Weights(part, self.winograd, dtype) for part in conv.weight.detach().chunk(n_inputs, 1)]
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)

    def gated(self, gate: Tensor) -> "Convolution":
        """Return this convolution with its last input scaled, channel by channel, by `gate` (C,)."""
        scaled = copy.copy(self)
        last = self.weights[-1]
        scaled.weights = [*self.weights[:-1], Weights(last.weight * gate[:, None, None], self.winograd, self.dtype)]
        return scaled

    def halo(self, strips: Strips) -> Strips:
        """Set the halos of this convolution's inputs."""
        return with_halo(strips, "reflect" if self.reflect else "zero")

    def __call__(self, *inputs: Strips) -> Strips:
        """Convolve strips with halos, one by one."""
        return map(self._convolve_winograd if self.winograd else self._convolve, *inputs)

    def _convolve_winograd(self, *strips: Strip) -> Strip:
        """Convolve by Winograd F(6,3)."""
        n, width = len(strips[0].data) // TILE, strips[0].data.shape[1]
        totals = scratch("totals", (N_PARTS, n, width + 2, self.out_channels), strips[0].data)
        for i, (strip, weights) in enumerate(zip(strips, self.weights, strict=True)):
            parts = scratch("parts", (N_PARTS, n, width + 2, strip.data.shape[2]), totals)
            split(strip.data, parts, self.reflect)
            convolve(totals, parts, cast(Tensor, weights.kernels), add=i > 0)
        result = Strip.empty(strips[0].rows, width, self.out_channels, totals)
        join(totals, result.data[1:-1], self.bias, self.slope)
        return result

    def _convolve(self, *strips: Strip) -> Strip:
        """Convolve directly."""
        images = [as_image(self._reflected(strip.data)) for strip in strips]
        height, width = images[0].shape[2:]
        kernel, *others = (weights.for_size(height, width, self.padding) for weights in self.weights)
        geometry = self.padding, [1, 1], [1, 1], 1
        slope = self.slope
        if kernel.is_mkldnn:
            fused = slope is not None and not others
            after = ("leaky_relu", [slope], "") if fused else ("none", [], "")
            total = torch.ops.mkldnn._convolution_pointwise(images[0], kernel, self.bias, *geometry, *after)
            if fused:
                slope = None
            for image, other in zip(images[1:], others, strict=True):
                add = torch.ops.mkldnn._convolution_pointwise_.binary
                add(total, image, other, None, *geometry, "add", 1.0, None, [], None)
        else:
            total = F.conv2d(images[0], kernel, self.bias, padding=self.padding)
            for image, other in zip(images[1:], others, strict=True):
                total.add_(F.conv2d(image, other, padding=self.padding))
        result = Strip(as_strip(total), strips[0].rows)
        if slope is not None:
            F.leaky_relu_(result.inner, slope)
        return result

    def _reflected(self, data: Tensor) -> Tensor:
        return torch.cat([data[:, 1:2], data, data[:, -2:-1]], 1) if self.reflect else data


def add(strips: Strips, others: Strips, gate: Tensor | None = None) -> Strips:
    """Add other strips, each channel scaled by `gate` (C,), in place."""

    def one(strip: Strip, other: Strip) -> Strip:
        strip.inner.add_(other.inner) if gate is None else strip.inner.addcmul_(other.inner, gate)
        return strip

    return map(one, strips, others)


def to_dtype(strips: Strips, dtype: torch.dtype) -> Strips:
    """Change the type of the values."""
    return map(lambda strip: Strip(strip.data.to(dtype), strip.rows), strips)


def pad_to_fours(strips: Strips) -> Strips:
    """Reflect columns and, in the last strip, rows, to multiples of 4."""

    def one(strip: Strip) -> Strip:
        below, right = -strip.rows % 4, -strip.data.shape[1] % 4
        if not below and not right:
            return strip
        return Strip.of(as_strip(F.pad(as_image(strip.inner), (0, right, 0, below), mode="reflect")))

    return map(one, strips)


def halve(strips: Strips) -> Strips:
    """Average 2x2 pixels."""
    return map(lambda strip: Strip.of(as_strip(F.avg_pool2d(as_image(strip.inner), 2))), strips)


def interpolate(x: Tensor, scale: int, dim: int) -> list[Tensor]:
    """Return every scale-th of the values between those of `x`, linear, half-pixel centres; `x` has a halo of 1."""
    n = x.shape[dim] - 2
    before, here, after = (x.narrow(dim, i, n) for i in range(3))
    offsets = [(i + 0.5) / scale - 0.5 for i in range(scale)]
    return [torch.lerp(here, before if offset < 0 else after, abs(offset)) for offset in offsets]


def enlarge(strips: Strips, scale: int, heights: list[int], width: int) -> Strips:
    """Interpolate (bilinear, half-pixel centres) to `scale` times the size, cropped to `heights` and `width`."""

    def one(strip: Strip, rows: int) -> Strip:
        data = strip.data[: strip.rows + 2]
        data = torch.cat([data[:, :1], data, data[:, -1:]], 1)
        data = torch.stack(interpolate(data, scale, 1), 2).flatten(1, 2)[:, :width]
        return Strip.of(torch.stack(interpolate(data, scale, 0), 1).flatten(0, 1)[:rows])

    return map(one, with_halo(strips, "replicate"), heights)


def read(pieces: list[Piece], heights: list[int], device: torch.device) -> Strips:
    """Return rows that follow each other, copied to a device as strips of these heights."""
    (top, first_values), *_ = pieces
    _, width, channels = first_values.shape
    like = first_values.new_empty(0, device=device)
    for rows in heights:
        strip = Strip.empty(rows, width, channels, like)
        for start, values in pieces:
            first, last = max(top, start), min(top + rows, start + len(values))
            if first < last:
                strip.inner[first - top : last - top] = values[first - start : last - start]
        top += rows
        yield strip


Finish = Callable[[Tensor, int], Tensor]
"""Makes rows of a cube (rows, W, bands) of the network's output; the first is row `top` of the image."""


def store(
    strips: Strips, top: int, section: Section, target: Tensor, sums: Tensor, finish: Finish | None = None
) -> Iterator[int]:
    """Write the section's rows of strips, the first of which is row `top`, into a feature map (H, W, C).

    Add each channel's sum to `sums` (C,), float64, and yield the number of rows, strip by strip.
    """
    for strip in strips:
        first, last = max(top, section.top), min(top + strip.rows, section.bottom)
        if first < last:
            rows = strip.inner[first - top : last - top]
            target[first:last] = rows if finish is None else finish(rows, first)
            # in place: a tensor kept per strip would lie between the strips' memory, and the system never get it back
            sums += rows.sum((0, 1), dtype=torch.float32)
            yield last - first
        top += strip.rows


def strip_heights(height: int, rows: int) -> list[int]:
    """Return the heights of strips of `rows` rows.

    The last has at least 4, so that the rows reflected below it are its own.
    """
    ends = [*range(rows, height - 3, rows), height]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


class Streamed:
    """A trained DRCR Net that runs on strips.

    In float32 the result is the network's own except for rounding (3e-6 of the largest value, tested). In bfloat16
    the first and the last convolution, the averages and the gates stay in float32.
    """

    def __init__(self, model: DRCR, dtype: torch.dtype = torch.float32, winograd: bool = True) -> None:
        """Prepare the weights for the device they are on; `winograd`: 3x3 convolutions by F(6,3)."""
        self.model, self.dtype = model, dtype
        self._size: tuple[int, int, int] | None = None  # rows of a strip and size of the last image
        self.convs: dict[nn.Module, Convolution] = {}
        slopes: dict[nn.Module, float] = dict.fromkeys((model.npm.fuse, *model.npm.merge), SLOPE)
        slopes |= {conv: SLOPE for conv in model.blocks.modules() if isinstance(conv, nn.Conv2d)}
        slopes |= {ends[0]: cast(nn.PReLU, ends[1]).weight.item() for ends in (model.stem, model.tail)}
        for conv in model.modules():
            if isinstance(conv, nn.Conv2d):
                n_inputs = conv.in_channels // model.architecture["channels"] or 1
                ends = conv in (model.stem[0], model.tail[2])
                own = torch.float32 if ends else dtype
                self.convs[conv] = Convolution(conv, winograd, own, n_inputs, slopes.get(conv))

    def _conv(self, conv: nn.Module, strips: Strips) -> Strips:
        """Convolve strips that no other layer reads."""
        return self.convs[conv](self.convs[conv].halo(strips))

    def stem(self, rgb: Strips) -> Strips:
        """RGB (H, W, 3), float32, -> features (H, W, C)."""
        first, _, second = self.model.stem
        return self._conv(second, to_dtype(self._conv(first, rgb), self.dtype))

    def tail(self, features: Strips) -> Strips:
        """Features (H, W, C) -> cube (H, W, bands), float32."""
        first, _, second = self.model.tail
        return self._conv(second, to_dtype(self._conv(first, features), torch.float32))

    def npm(self, x: Strips, heights: list[int], width: int) -> Strips:
        """Features (H, W, C) -> features; `heights` of the strips: multiples of 4, except the last."""
        npm = self.model.npm
        kernels, fuse = cast(list[TwoKernels], list(npm.kernels)), self.convs[npm.fuse]
        x, skip = tee(x)
        x, half = tee(x)
        half, quarter = tee(halve(pad_to_fours(half)))
        scales = [
            self._scale(x, kernels[0], npm.merge[0]),
            enlarge(self._scale(half, kernels[1], npm.merge[1]), 2, heights, width),
            enlarge(self._scale(halve(quarter), kernels[-1], npm.merge[2]), 4, heights, width),
        ]
        return add(fuse(*map(fuse.halo, scales)), skip)

    def _scale(self, x: Strips, kernels: TwoKernels, merge: nn.Module) -> Strips:
        x, x1 = tee(x)
        conv = self.convs[merge]
        pair = self._conv(kernels.conv3x3, x), self._conv(kernels.conv1x1, x1)
        return conv(*map(conv.halo, pair))

    def block(self, x: Strips, block: DRCRBlock, mean: Tensor) -> Strips:
        """Run a block on strips; `mean` (C,) is each channel's average over the whole image.

        The average of r is that of x times CRM1's gate, so both gates are known before the first strip.
        """
        gate1 = block.crm1.gate(mean)
        gate2 = gate1 * block.crm2.gate(mean * gate1)
        conv1, conv2, conv3, conv4, conv5, conv6 = (self.convs[getattr(block, f"conv{i}")] for i in range(1, 7))
        conv4 = conv4.gated(gate1)

        x, skip = tee(x)
        first, r = tee(conv1.halo(x))
        e1, e1_skip = tee(conv2.halo(conv1(first)))
        e2, e2_skip = tee(conv3.halo(conv2(e1)))
        e3 = conv4.halo(conv3(e2))
        d4 = conv5.halo(conv4(e3, r))
        d5 = conv6.halo(conv5(e2_skip, d4))
        d6 = conv6(e1_skip, d5)
        return add(d6, skip, gate2.to(self.dtype))

    def __call__(
        self,
        rgb: Tensor,
        rows: int,
        kept: Tensor,
        cube: Tensor,
        advance: Callable[[int], None] = lambda rows: None,
        n_sections: int = 1,
        finish: Finish | None = None,
    ) -> None:
        """Fill `cube` (H, W, bands), float32, on any device, from an image (H, W, 3), float32.

        Strips have `rows` rows. `kept` is memory for a feature map, (H, W, C) of this network's type, on any device.
        `advance` is called with the number of rows just finished, (blocks + 1) H in all. Each of `n_sections`
        sections of the image is computed by a thread of its own. `finish`: what is done to the network's output.
        """
        height, width, _ = rgb.shape
        if self._size != (rows, height, width):
            self._size = rows, height, width
            for conv in self.convs.values():
                for weights in conv.weights:
                    weights.forget()

        sections = divide(height, n_sections)
        sums = None  # of each section, so that the order in which threads end changes no digit
        blocks = [None, *(cast(DRCRBlock, block) for block in self.model.blocks)]
        for block in blocks:
            mean = None if sums is None else (sums.sum(0) / (height * width)).float()
            source, margin = (rgb, FIRST_MARGIN) if block is None else (kept, MARGIN)
            target = cube if block is blocks[-1] else kept
            sums = torch.zeros(n_sections, target.shape[2], dtype=torch.float64, device=rgb.device)
            inputs = [with_margin(source, section, margin) for section in sections]
            sweeps = [self._sweep(pieces, rows, rgb.device, block, mean, block is blocks[-1]) for pieces in inputs]
            run_sections(
                [
                    store(sweep, pieces[0][0], section, target, own, finish if target is cube else None)
                    for sweep, pieces, section, own in zip(sweeps, inputs, sections, sums, strict=True)
                ],
                advance,
            )

    def _sweep(
        self,
        pieces: list[Piece],
        rows: int,
        device: torch.device,
        block: DRCRBlock | None,
        mean: Tensor | None,
        is_last: bool,
    ) -> Strips:
        """Run stem and NPM, or a block, and in the last sweep the tail, on rows that follow each other."""
        width = pieces[0][1].shape[1]
        if block is None:
            rows += -rows % FIRST_ROWS
        heights = strip_heights(sum(len(values) for _, values in pieces), rows)
        x = read(pieces, heights, device)
        x = self.npm(self.stem(x), heights, width) if block is None else self.block(x, block, cast(Tensor, mean))
        return self.tail(x) if is_last else x
