"""drcr/compute/streaming.py, drcr/compute/memory.py, and the strips and memory of drcr/inference.py."""

import gc
import threading

import numpy as np
import pytest
import torch
from helpers import peak_memory

from drcr import inference as module
from drcr.compute.device import native_bf16
from drcr.compute.memory import free_memory
from drcr.compute.sections import Section, run_sections, with_margin
from drcr.compute.streaming import Streamed, Weights, tee
from drcr.inference import Reconstructor
from drcr.model import DRCR
from drcr.networks import widen

CPU = torch.device("cpu")
N_THREADS = torch.get_num_threads()
needs_bf16 = pytest.mark.skipif(not native_bf16(CPU), reason="this processor does not compute in bfloat16 itself")


def network(**sizes) -> DRCR:
    """Return a small network with all its weights, biases and slopes off zero."""
    torch.manual_seed(0)
    model = DRCR(**{"channels": 16, "n_blocks": 2} | sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def image(height: int, width: int) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(height * width))


@torch.inference_mode()
def plain(model: DRCR, rgb: torch.Tensor) -> torch.Tensor:
    """Return the network's own result, (H, W, bands)."""
    return model(rgb.permute(2, 0, 1)[None])[0].permute(1, 2, 0)


@torch.inference_mode()
def streamed(model: DRCR, rgb: torch.Tensor, rows: int, winograd=True, dtype=torch.float32, **how) -> torch.Tensor:
    kept = torch.full((*rgb.shape[:2], model.architecture["channels"]), torch.nan, dtype=dtype)
    cube = torch.full((*rgb.shape[:2], model.architecture["out_channels"]), torch.nan)
    Streamed(model, dtype, winograd)(rgb, rows, kept, cube, **how)
    return cube


def relative(result, expected) -> float:
    return float(abs(result - expected).max() / abs(expected).max())


@pytest.mark.parametrize("winograd", [True, False])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (18, 6), (19, 37), (66, 20)])
@pytest.mark.parametrize("rows", [4, 7, 8, 18, 100])
def test_strips_give_the_whole_image(winograd, height, width, rows):
    model, rgb = network(), image(height, width)
    assert relative(streamed(model, rgb, rows, winograd), plain(model, rgb)) < 1e-5


@pytest.mark.parametrize("sizes", [{}, {"npm": "paper"}, {"n_blocks": 0}, {"n_blocks": 1}])
@pytest.mark.parametrize(("height", "count"), [(66, 2), (97, 3), (40, 5)])
def test_sections_in_threads_give_the_whole_image(sizes, height, count):
    model, rgb = network(**sizes), image(height, 21)
    expected = streamed(model, rgb, 8)
    done = []
    result = streamed(model, rgb, 8, n_sections=count, advance=done.append)
    assert relative(result, expected) < 3e-6, "only the order of sums differs"
    assert sum(done) == height * (model.architecture["n_blocks"] + 1)
    assert torch.get_num_threads() == N_THREADS


def test_a_stop_ends_the_threads():
    model, rgb, kept = network(), image(600, 20), torch.full((600, 20, 16), torch.nan)

    def stop(rows):
        raise KeyboardInterrupt

    before = threading.active_count()
    with torch.inference_mode(), pytest.raises(KeyboardInterrupt):
        Streamed(model)(rgb, 4, kept, torch.empty(600, 20, 31), stop, n_sections=2)
    assert threading.active_count() == before
    assert kept.isnan().any(), "they went on to the end"


def test_an_error_in_a_thread_is_raised():
    with torch.inference_mode(), pytest.raises(RuntimeError):
        Streamed(network())(image(66, 20), 4, torch.empty(66, 20, 16), torch.empty(60, 20, 31), n_sections=2)


def test_threads_that_start_later_have_the_number_of_threads_of_before():
    torch.set_num_threads(2)
    try:
        counts = []
        run_sections([iter((1, 2)), iter((3,))], counts.append)
        assert sorted(counts) == [1, 2, 3]
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert counts[-1] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(N_THREADS)


def test_what_a_section_reads_of_its_neighbours_is_a_copy():
    values = torch.arange(40.0).view(20, 2, 1)
    pieces = with_margin(values, Section(8, 12), 4)
    assert [(start, len(rows)) for start, rows in pieces] == [(4, 4), (8, 4), (12, 4)]
    expected = torch.cat([rows.clone() for _, rows in pieces])
    values[:8], values[12:] = -1, -1
    assert torch.equal(torch.cat([rows for _, rows in pieces]), expected)
    assert torch.equal(expected[:, 0, 0], torch.arange(8.0, 32, 2))


@pytest.mark.parametrize("sizes", [{"npm": "paper"}, {"n_blocks": 0}, {"channels": 9, "out_channels": 5}])
def test_other_networks(sizes):
    model, rgb = network(**sizes), image(22, 18)
    assert relative(streamed(model, rgb, 8), plain(model, rgb)) < 1e-5


@pytest.mark.slow
def test_full_width_network():
    """Of 100 channels, where rounding adds up most."""
    model, rgb = network(channels=100, n_blocks=3), image(30, 24)
    assert relative(streamed(model, rgb, 16), plain(model, rgb)) < 1e-5


def test_the_average_is_over_the_whole_image():
    """A change in the last row reaches the first one, which only the CRMs' averages can carry there."""
    model, rgb = network(), image(160, 8)
    changed = rgb.clone()
    changed[-1] = 0
    first, second = (streamed(model, one, 4)[0] for one in (rgb, changed))
    assert not torch.equal(first, second)
    assert relative(second, plain(model, changed)[0]) < 1e-5


@pytest.mark.parametrize("winograd", [True, False])
def test_the_order_of_the_weights_changes_no_bit(winograd, monkeypatch):
    """Packed for 64 x 64 pixels instead of the strips that come, for images of two sizes in turns."""
    model, images = network(channels=32), [image(38, 64), image(21, 30)]
    results = [streamed(model, rgb, 16, winograd) for rgb in images]
    pack = Weights._pack
    monkeypatch.setattr(Weights, "_pack", lambda self, size, padding: pack(self, [*size[:2], 64, 64], padding))
    for rgb, result in zip(images, results, strict=True):
        assert torch.equal(streamed(model, rgb, 16, winograd), result)


def test_weights_packed_for_an_image_size_are_freed_when_another_comes():
    model = network()
    net = Streamed(model)
    with torch.inference_mode():
        for width in (12, 20, 20):
            net(image(12, width), 8, torch.empty(12, width, 16), torch.empty(12, width, 31))
    sizes = {size for conv in net.convs.values() for weights in conv.weights for size in weights._packed}
    assert sizes
    assert {width for _, width in sizes} <= {20, 22, 10, 5}  # with reflection, and NPM's half and quarter


@needs_bf16
@pytest.mark.parametrize("winograd", [True, False])
def test_bf16_is_close(winograd):
    model, rgb = network(), image(34, 30)
    result, expected = streamed(model, rgb, 16, winograd, torch.bfloat16), plain(model, rgb)
    assert result.dtype == torch.float32
    assert 1e-6 < (result - expected).abs().mean() / expected.abs().mean() < 0.01


@pytest.mark.parametrize(("channels", "wide"), [(9, 16), (20, 24), (16, 16)])
@pytest.mark.parametrize("npm", ["released", "paper"])
@pytest.mark.parametrize("to_train", [False, True])
def test_added_channels_change_nothing(channels, wide, npm, to_train):
    model, rgb = network(channels=channels, npm=npm), image(21, 14)
    wider = widen(model, wide, to_train)
    assert wider.architecture["channels"] == wide
    assert relative(plain(wider, rgb), plain(model, rgb)) < 1e-5
    assert relative(streamed(wider, rgb, 8), plain(model, rgb)) < 1e-5


def test_tee_keeps_only_what_is_wanted():
    import weakref

    class Item:
        pass

    alive = []

    def source():
        for _ in range(10):
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    def count():
        return sum(reference() is not None for reference in alive)

    first, second = tee(source())
    for _ in range(3):
        next(first)
    assert count() == 3
    for _ in range(2):
        next(second)
    assert count() == 1
    assert len([*first]) == 7
    assert len([*second]) == 8


def test_tiles_and_files_change_nothing(tmp_path, monkeypatch):
    model, rgb = network(), image(70, 24).numpy()
    expected = plain(model, torch.from_numpy(rgb)).numpy()
    for tile in (4, 32, 72, "auto"):
        assert relative(Reconstructor(model, tile=tile)(rgb), expected) < 1e-5

    # no memory at all: strips of the fewest rows, and the feature map in a file
    monkeypatch.setattr(module, "free_memory", lambda device: 0)
    opened = []
    from_file = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda path, **how: opened.append(path) or from_file(path, **how))
    reconstructor = Reconstructor(model, scratch=tmp_path)
    for _ in range(2):  # the second time over what the first left in the file
        assert relative(reconstructor(rgb), expected) < 1e-5
    assert len(opened) == 1
    assert not list(tmp_path.iterdir())


def test_no_room_for_the_file_says_how_much_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda device: 0)
    monkeypatch.setattr(module.os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match=r"No space left.* 0\.0 GB needed") as error:
        Reconstructor(network(), scratch=tmp_path)(image(8, 8).numpy())
    assert str(tmp_path) in error.value.filename
    assert not list(tmp_path.iterdir())


def test_auto_takes_fewer_rows_of_wide_images():
    """At most 8 MB with Winograd, 20 MB without (16 channels); 80 channels take 320 bytes per pixel."""
    reconstructor = Reconstructor(network(channels=80, n_blocks=0))
    assert [reconstructor._rows(1000, width) for width in (100, 1000, 5000, 1_000_000)] == [60, 24, 6, 6]
    direct = Reconstructor(network())
    assert [direct._rows(1000, width) for width in (1000, 10_000)] == [60, 30]


def test_auto_takes_fewer_rows_where_memory_is_short(monkeypatch):
    reconstructor = Reconstructor(network(channels=80, n_blocks=0))
    rows = []
    for free in (10**12, 5 * 10**7, 10**5):
        monkeypatch.setattr(module, "free_memory", lambda device, free=free: free)
        rows.append(reconstructor._rows(1000, 100))
    assert rows == [60, 12, 6]


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="3 x 9"):
        Reconstructor(network())(np.ones((3, 9, 3), np.float32))
    with pytest.raises(ValueError, match="5 x 9"):
        Reconstructor(network())(np.ones((5, 9, 3), np.float32), "released")


def test_advance_is_told_of_every_pixel():
    for protocol in ("padded", "released"):
        done = []
        Reconstructor(network(), tile=16)(image(50, 10).numpy(), protocol, done.append)
        rows = 50 if protocol == "padded" else 48
        assert sum(done) == pytest.approx(rows * 10)
        assert len(done) > 6


@pytest.mark.slow
def test_strips_bound_the_memory():
    """In strips, an image eight times as high takes more memory only for the feature map and the cube."""
    program = """
import sys, numpy as np, torch
from drcr.model import DRCR
from drcr.networks import widen
from drcr.inference import Reconstructor
torch.set_num_threads(2)
height, tile = map(int, sys.argv[1:])
Reconstructor(DRCR(channels=32, n_blocks=1).eval(), tile=tile)(np.ones((height, 256, 3), np.float32))
"""

    def grown(height: int, tile: int) -> float:
        return peak_memory("-c", program, height, tile) - peak_memory("-c", program, 128, tile)  # two sections

    kept_and_cube = 1024 * 256 * (32 + 31 + 3) * 4 / 2**20  # MB
    assert grown(1024, 16) < kept_and_cube + 60
    assert grown(1024, 1024) > 3 * kept_and_cube


def test_no_tensor_is_kept_per_strip():
    """Small ones would lie between the memory of the strips, which the system then never gets back."""
    counts = []

    def count(rows):
        counts.append(sum(type(item) is torch.Tensor for item in gc.get_objects()))

    streamed(network(), image(480, 8), 6, advance=count)
    first, *blocks = np.split(np.array(counts), [40, 120])  # 40 strips of 12 rows, then 80 of 6 per block
    assert [len(sweep) for sweep in blocks] == [80, 80]
    for sweep in (first, *blocks):
        assert sweep[-15:].max() <= sweep[:15].max() + 3


def test_free_memory_is_what_the_system_says():
    assert 2**20 < free_memory(CPU) < 2**50


def test_free_memory_within_a_container(tmp_path, monkeypatch):
    from drcr.compute import memory

    for name, text in (("max", "5000000"), ("current", "3000000"), ("stat", "anon 1\nfile 500000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    limits = (tmp_path / "memory.max", tmp_path / "memory.current", (tmp_path / "memory.stat", "file"))
    monkeypatch.setattr(memory, "_control_groups", lambda: [limits])
    assert free_memory(CPU) == 2_500_000
    limits[0].write_text("max\n")
    assert free_memory(CPU) > 2_500_000
