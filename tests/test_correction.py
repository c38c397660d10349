"""drcr/correction.py: base map, brightness, data consistency, and the commands that use them."""

import numpy as np
import pytest
import torch
from helpers import DATA, ROOT, load_script, run_options, same_run

from drcr.camera import responses
from drcr.checkpoint import load_model, read_checkpoint, save_checkpoint
from drcr.correction import Correction, image_statistics, root_polynomial, solve
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import load_cube, read_cube
from drcr.images import normalise_rgb, read_image
from drcr.inference import Reconstructor
from drcr.model import DRCR
from drcr.networks import widen
from drcr.tags import decode_srgb, encode_srgb
from drcr.utils.files import DataError

BASE = ("--base", "root-polynomial", "--loss", "si-mrae+sam", "--recipe", "flip", "--camera", "Nikon 5100 (NPL)")
SMALL_RUN = ("--end_epoch", 1, "--max_iter", 3)


def smooth_spectra(count, seed=0):
    """Return positive spectra (count, 31) such as surfaces have."""
    rng = np.random.default_rng(seed)
    waves = np.stack([np.cos(np.pi * k * np.linspace(0, 1, 31)) / (1 + k) for k in range(5)])
    return torch.tensor(np.exp(rng.normal(0, 0.7, (count, 5)) @ waves - 1.5), dtype=torch.float32)


def a_correction(camera="sRGB", seed=0):
    """Return a correction whose base and network are random, off their start values."""
    torch.manual_seed(seed)
    network = DRCR(channels=8, n_blocks=1)
    network.wavelengths = WAVELENGTHS.tolist()
    model = Correction(network, network.wavelengths)
    model.set_camera(camera)
    spectra = smooth_spectra(400)
    images = (spectra @ model.curves @ torch.linalg.inv(model.responses)).clamp_min(1e-3)
    pairs = [(images.T.reshape(3, 20, 20), spectra.T.reshape(31, 20, 20))]
    model.fit(pairs, [(part * factor, cube) for part, cube in pairs for factor in (0.5, 1, 2)], 0.0)
    torch.nn.init.constant_(model.highlights, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def trained(prepared_once, tmp_path_factory):
    """Return the checkpoint of a short run with a base map."""
    outf = tmp_path_factory.mktemp("run")
    load_script("train/main.py").main(run_options(prepared_once, outf, *BASE, *SMALL_RUN))
    return outf / "last.pth"


def test_a_training_from_a_correction_keeps_what_it_has_learnt(trained, prepared_once, tmp_path):
    start = load_model(trained)
    with torch.no_grad():
        start.highlights.copy_(torch.tensor([0.1, 0.2, 0.3]))
        start.strength[0] = -0.5
        start.network = widen(start.network, 12, to_train=True)
    save_checkpoint(tmp_path / "start.pth", start)
    run = ("--init", tmp_path / "start.pth", "--init_lr", 1e-9, *BASE, *SMALL_RUN)
    load_script("train/main.py").main(run_options(prepared_once, tmp_path / "run", *run))
    model = load_model(tmp_path / "run/last.pth")
    assert model.architecture["channels"] == 12
    for name, learnt in start.named_parameters(recurse=False):
        assert torch.allclose(getattr(model, name), learnt, atol=1e-6), name


def test_terms_are_those_published():
    finlayson = pytest.importorskip("colour.characterisation").polynomial_expansion_Finlayson2015
    rgb = torch.rand(50, 3) + 0.01
    expected = finlayson(rgb.numpy(), 4, root_polynomial_expansion=True)
    assert np.allclose(np.sort(root_polynomial(rgb).numpy(), 1), np.sort(expected, 1), rtol=1e-5)


def test_solve():
    matrix, right = torch.randn(3, 3, 7, 5, dtype=torch.float64), torch.randn(3, 7, 5, dtype=torch.float64)
    expected = torch.linalg.solve(matrix.permute(2, 3, 0, 1), right.permute(1, 2, 0))
    assert torch.allclose(solve(matrix, right).permute(1, 2, 0), expected)


@pytest.mark.parametrize("camera", ["sRGB", "Nikon 5100 (NPL)"])
def test_what_is_held_entirely_has_the_images_colours(camera):
    model = a_correction(camera)
    model.consistency = "full"
    truth, wrong = smooth_spectra(2000), smooth_spectra(2000, seed=1)
    lit = truth @ model.curves @ torch.linalg.inv(model.responses)
    held = model.hold(wrong, lit, torch.ones(2000))
    assert (held > 0).all()
    before, after = (((spectra @ model.curves) / (truth @ model.curves) - 1).abs() for spectra in (wrong, held))
    assert before.mean() > 0.3
    assert after.max() < 1e-4


def test_half_is_half_of_the_way_in_the_logarithm():
    model = a_correction()
    model.consistency = "half"
    truth, wrong = smooth_spectra(500), smooth_spectra(500, seed=1)
    lit = truth @ model.curves @ torch.linalg.inv(model.responses)
    seen = [(spectra @ model.curves).log() for spectra in (wrong, model.hold(wrong, lit, torch.ones(500)), truth)]
    assert ((seen[1] - seen[0]) - (seen[2] - seen[0]) / 2).abs().median() < 0.01


@pytest.mark.parametrize("factor", [0.1, 0.5, 7.0])
def test_another_exposure_gives_the_same_cube(factor):
    model = a_correction()
    rgb = torch.rand(1, 3, 20, 24) * 0.9 + 0.1
    with torch.no_grad():
        cubes = [model(rgb), model(factor * rgb)]
    assert torch.allclose(cubes[0], cubes[1], rtol=1e-3)


def test_no_scene_reflects_more_than_all_light():
    """An image of noise, unlike any scene, came out with a mean of 1.007."""
    model = a_correction()
    model.rule[-1] = 2.0
    rgb = torch.rand(2, 500, 3) * torch.tensor([0.1, 1.0]).view(2, 1, 1)
    assert torch.allclose((model.brightness(rgb)[:, None, None] * rgb).mean((1, 2)), torch.ones(2))


def test_what_the_brightness_rule_knows_of_colour():
    grey = torch.tensor([[0.2, 0.2, 0.2], [0.6, 0.6, 0.6]])
    coloured = torch.tensor([[0.3, 0.2, 0.1], [0.6, 0.9, 0.3]])
    _, statistics = image_statistics(torch.stack([grey, coloured, torch.zeros(2, 3)]))
    assert torch.allclose(statistics[0, 4:6], torch.tensor([0.0, np.log(0.2)]).float(), atol=1e-6)
    ratios = np.log([(0.3 / 0.4 + 0.02) / (0.1 / 0.4 + 0.02), (0.9 / 0.4 + 0.02) / (0.3 / 0.4 + 0.02)])
    spread = np.sqrt((0.2**2 + 0.6**2) / 2) / 0.4
    assert torch.allclose(statistics[1, 4:6], torch.tensor([ratios.mean(), np.log(spread + 0.2)]).float(), atol=1e-6)
    assert statistics.isfinite().all()


def test_a_rule_that_knows_no_colour_is_read_as_it_was_fitted(trained, tmp_path):
    checkpoint = torch.load(trained, weights_only=True)
    rule = checkpoint["correction"]["rule"]
    rule[4:6] = 0
    cubes = []
    for values in (rule, torch.cat([rule[:4], rule[6:]])):
        checkpoint["correction"]["rule"] = values
        torch.save(checkpoint, tmp_path / "model.pth")
        torch.manual_seed(0)
        with torch.no_grad():
            cubes.append(load_model(tmp_path / "model.pth")(torch.rand(1, 3, 20, 24)))
    assert torch.equal(*cubes)


def test_clipped_pixels_are_brightened():
    model = a_correction()
    rgb = torch.full((1, 4, 6, 3), 0.5)
    rgb[0, 0, 0] = torch.tensor([1.0, 0.2, 0.2])
    rgb[0, 1, 1] = 1.0
    with torch.no_grad():
        model.highlights.copy_(torch.tensor([0.1, 0.2, 0.4]))
        lit, unclipped = model.light(rgb, torch.tensor([2.0]))
    gain = (lit / rgb / 2)[0, ..., 1].log()
    assert torch.allclose(gain[[0, 1, 3], [0, 1, 3]], torch.tensor([0.1, 0.4, 0.0]), atol=1e-6)
    assert unclipped.sum() == 4 * 6 - 2


def test_bright_pixels_that_are_not_clipped_are_not_brightened():
    """An even rise to the largest value had a step of 40% where the last 2% began."""
    model = load_model(ROOT / "test/model/model.pth")
    rgb = torch.full((64, 160, 3), 0.2)
    rgb[10:54, 10:150] = torch.linspace(0.88, 1, 140)[None, :, None]
    steps = []
    for image in (rgb, (1.05 * rgb).clamp_max(1)):
        with torch.no_grad():
            across = model(image.permute(2, 0, 1)[None])[0, :, 30, 12:148].mean(0)
        steps.append((across[1:] / across[:-1]).max())
    assert steps[0] < 1.03
    assert steps[1] > 1.2  # where it is clipped


def test_the_number_of_bits_does_not_change_the_brightness():
    """A step at which pixels count as clipped gave a file of 8 bits 6% less light than one of 10."""
    model = load_model(ROOT / "test/model/model.pth")
    rows, columns = np.mgrid[0:1:64j, 0:1:96j]
    light = 0.05 + 0.9 * np.stack([columns, rows, 0.5 * (1 - columns) + 0.3 * rows], 2)
    factors = []
    for bits in (8, 10, 12):
        codes = np.round(encode_srgb(light) * (2**bits - 1)) / (2**bits - 1)
        rgb = normalise_rgb(decode_srgb(np.float32(codes)))
        factors.append(float(model.brightness(torch.from_numpy(rgb).reshape(1, -1, 3))[0]))
    assert max(factors) < 1.045 * min(factors)


def test_the_brightness_of_new_scenes_is_found_if_the_statistics_tell_it():
    model = a_correction()
    rng = np.random.default_rng(0)

    def scene():
        """Return a scene that is the darker, the more contrast it has, at any exposure."""
        contrast = rng.uniform(0.2, 1)
        spectra = smooth_spectra(400, rng.integers(1e6)) ** contrast * 0.3 ** (3 * contrast)
        image = (spectra @ model.curves @ torch.linalg.inv(model.responses)).clamp_min(1e-4)
        return (image * rng.uniform(0.1, 10)).T.reshape(3, 20, 20), spectra.T.reshape(31, 20, 20)

    model.fit([scene()], [scene() for _ in range(30)], 0.0)
    errors, spread = [], []
    for image, cube in (scene() for _ in range(30)):
        x, y = (values.flatten(1).T[None] for values in (image, cube))
        errors.append((model.brightness(x) / model.true_brightness(x, y)).log().item())
        spread.append((model.true_brightness(x, y) * image_statistics(x)[0]).log().item())
    assert np.std(errors) < 0.4 * np.std(spread)


def test_a_checkpoint_without_a_base_is_the_network_itself(prepared_once, tmp_path):
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "plain.pth", DRCR(channels=8, n_blocks=1))
    assert "correction" not in read_checkpoint(tmp_path / "plain.pth")
    assert isinstance(load_model(tmp_path / "plain.pth"), DRCR)


def test_strips_tiles_and_the_module_agree(trained):
    model = load_model(trained)
    image = read_image(min((DATA / "Dataset/Valid_RGB").iterdir())).normalised()
    with torch.no_grad():
        expected = model(torch.from_numpy(image)[None].permute(0, 3, 1, 2))[0].permute(1, 2, 0).numpy()
    for tile in ("auto", 12):
        assert np.allclose(Reconstructor(model, tile=tile)(image), expected, rtol=1e-3, atol=1e-6)


def test_onnx_gives_the_same(trained, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import onnxruntime

    load_script("train/export.py").main(
        [*("--model_dir", str(trained)), *("--format", "onnx"), *("--out", str(tmp_path / "model.onnx"))]
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    model = load_model(trained)
    for size in ((20, 24), (37, 33)):
        rgb = torch.rand(1, 3, *size)
        with torch.no_grad():
            expected = model(rgb).numpy()
        assert np.allclose(session.run(None, {"rgb": rgb.numpy()})[0], expected, rtol=1e-3, atol=1e-5)


def test_export_in_half_precision_keeps_base_and_rule(trained, tmp_path):
    out = tmp_path / "half.pth"
    load_script("train/export.py").main(["--model_dir", str(trained), "--out", str(out)])
    before, after = read_checkpoint(trained)["correction"], read_checkpoint(out)["correction"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in ("base", "rule", "curves", "shapes"))
    assert load_model(out).camera == "Nikon 5100 (NPL)"


def test_a_run_that_is_resumed_ends_with_the_same_weights(prepared_once, tmp_path):
    main = load_script("train/main.py").main
    main(run_options(prepared_once, tmp_path / "whole", *BASE, *("--end_epoch", 2)))
    for epochs in (1, 2):
        main(run_options(prepared_once, tmp_path / "parts", *BASE, "--resume", "auto", "--end_epoch", epochs))
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    first, second = (read_checkpoint(tmp_path / name / "last.pth")["correction"] for name in ("whole", "parts"))
    assert torch.equal(first["strength"], second["strength"])


@pytest.mark.parametrize("part", ["base", "rule", "consistency", None])
def test_a_damaged_correction_is_refused_in_one_line(trained, tmp_path, part):
    checkpoint = torch.load(trained, weights_only=True)
    if part is None:
        del checkpoint["correction"]["floor"]
    else:
        checkpoint["correction"][part] = torch.full((22, 31), float("nan"))
    torch.save(checkpoint, tmp_path / "damaged.pth")
    with pytest.raises(DataError, match="damaged"):
        load_model(tmp_path / "damaged.pth")


def test_any_network_can_be_held_to_the_image(script, tmp_path):
    torch.manual_seed(0)
    network = DRCR(channels=8, n_blocks=1)
    network.wavelengths = WAVELENGTHS.tolist()
    with torch.no_grad():
        network.tail[2].weight.abs_()  # spectra of a bad network, but not negative
    save_checkpoint(tmp_path / "model.pth", network)
    images = DATA / "Dataset/Valid_RGB"
    options = ("--RGB_dir", images, "--model_dir", tmp_path / "model.pth", "--result_dir")
    script("test/test.py", *options, tmp_path / "plain")
    held = ("--consistency", "full", "--camera", "Nikon 5100 (NPL)")
    script("test/test.py", *options, tmp_path / "held", *held)
    curves, _ = responses("Nikon 5100 (NPL)")
    for path in sorted(images.iterdir()):
        image = read_image(path).normalised()
        seen = read_cube(tmp_path / f"held/{path.stem}.mat") @ curves
        inside = (image.max(2) < 0.98) & (image.min(2) > 0.1)
        ratio = (seen / np.maximum(image, 1e-6))[inside]
        assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 1e-4
        assert "consistency full, camera Nikon 5100 (NPL)" in load_cube(tmp_path / f"held/{path.stem}.mat").origin


def test_consistency_without_a_camera_is_refused(fails, tmp_path):
    save_checkpoint(tmp_path / "model.pth", DRCR(channels=8, n_blocks=1))
    options = ("--RGB_dir", DATA / "Dataset/Valid_RGB", "--model_dir", tmp_path / "model.pth")
    message = fails("test/test.py", *options, "--consistency", "half", names="model.pth")
    assert "--camera" in message
