"""Photographs of cubes: a camera maker's steps, each compared with what colour science says it should give."""

import colour
import numpy as np
import pytest
from PIL import Image

from drcr.camera import Camera
from drcr.cube import WAVELENGTHS
from drcr.formats.mat import write_cube
from drcr.images import read_image
from drcr.light import lamp
from drcr.preparation.photograph import Cameras, Photograph, colour_matrix
from drcr.preparation.render import render_rgb
from drcr.preparation.simulation import reflectances
from drcr.tags import decode_srgb

CAMERA = Camera(gains=(1, 1, 1))
EVEN = np.ones(31)
EXACT = Photograph(electrons=(0, 0), mean=(0.2, 0.2), quality=(97, 97), balance_error=0, light=EVEN)


def raw(cube):
    """Return what the camera sees of a cube, white being 1."""
    return CAMERA(cube) / CAMERA.white()


def rng():
    return np.random.default_rng(0)


def checker(light=EVEN):
    """Return a cube (4, 6, 31) of ColorChecker patches under a light, darkened so that none clips."""
    return (reflectances()[-24:] * light).reshape(4, 6, 31) * 0.9 / light.max()


@pytest.mark.parametrize("light", ["E", "A", "D75"])
def test_greys_stay_grey_under_any_light(light):
    power = lamp(light)
    greys = np.linspace(0.05, 1, 20)[None, :, None] * power / power.max()
    photograph = Photograph(electrons=(0, 0), mean=(0.3, 0.3), balance_error=0, light=power)
    image = photograph.develop(raw(greys), CAMERA, rng()).astype(int)
    assert np.ptp(image, axis=2).max() <= 1
    assert (np.diff(image[0, :, 1]) >= 0).all()


def test_colours_are_srgb_as_colour_science_computes_them():
    """ColorChecker patches under even light: Delta E 2000 of 3 on average, as good cameras reach."""
    image = EXACT.develop(raw(checker()), CAMERA, rng())
    observer = (
        colour.MSDS_CMFS["CIE 1931 2 Degree Standard Observer"].copy().align(colour.SpectralShape(400, 700, 10))
    )
    xyz = checker() @ observer.values / observer.values[:, 1].sum()
    d65 = colour.xy_to_XYZ(colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"]["D65"])
    white = observer.values.sum(0) / observer.values[:, 1].sum()
    xyz = colour.chromatic_adaptation(xyz, white, d65, method="Von Kries", transform="Bradford")
    linear = decode_srgb(image / 255)
    ours = colour.RGB_to_XYZ(linear, "sRGB", apply_cctf_decoding=False)
    ours *= xyz[..., 1].mean() / ours[..., 1].mean()  # the exposure
    lab = [colour.XYZ_to_Lab(values / 0.9, d65[:2] / d65.sum()) for values in (ours, xyz)]
    assert colour.delta_E(*lab, method="CIE 2000").mean() < 3


def test_the_colour_matrix_keeps_white_and_brings_colours_nearer():
    matrix = colour_matrix(CAMERA, EVEN)
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert not np.allclose(matrix, np.eye(3), atol=0.1)


def test_the_file_reads_as_a_photograph(tmp_path):
    cube = np.kron(checker(), np.ones((16, 16, 1)))
    (tmp_path / "a.jpg").write_bytes(render_rgb(cube, WAVELENGTHS, CAMERA, EXACT, rng(), "a"))
    image = read_image(tmp_path / "a.jpg")
    assert image.how == "decoded from sRGB (as tagged)"
    assert image.values.mean() == pytest.approx(0.2, rel=0.02)
    expected = decode_srgb(EXACT.develop(raw(cube), CAMERA, rng()) / 255)
    assert np.abs(image.values - expected).mean() < 0.01


def test_noise_is_that_of_the_electrons_at_white():
    """A white surface in green has as many photo-electrons as drawn, before white balance and matrix mix channels."""
    photograph = Photograph(electrons=(100, 100), mean=(0.3, 0.3), balance_error=0, light=EVEN)
    image = photograph.develop(raw(np.ones((200, 200, 31))), CAMERA, rng())
    linear = decode_srgb(image / 255)
    # the matrix adds the channels' noise up, squared
    curves = CAMERA.curves() / CAMERA.white()
    response = curves.sum(0)
    expected = np.sqrt((colour_matrix(CAMERA, EVEN) ** 2) @ (1 / (100 * response)))
    np.testing.assert_allclose(linear.std((0, 1)) / linear.mean((0, 1)), expected, rtol=0.05)


def test_what_is_drawn():
    """Exposure and quality stay in their ranges and vary; so does the balance."""
    cube = np.kron(checker(), np.ones((8, 8, 1)))
    means, qualities, balances = [], set(), []
    photograph = Photograph(light=EVEN)
    random = rng()
    for _ in range(60):
        image = photograph.develop(raw(cube * 0.2), CAMERA, random)
        linear = decode_srgb(image / 255)
        means.append(linear.mean())
        balances.append(np.log(linear[24:, :8, 0].mean() / linear[24:, :8, 1].mean()))  # the white patch
        with Image.open(__import__("io").BytesIO(photograph.encode(image, random))) as file:
            qualities.add(tuple(file.quantization[0]))
    assert min(means) > 0.07
    assert max(means) < 0.36
    assert np.ptp(means) > 0.15
    assert len(qualities) > 8
    assert 0.01 < np.std(balances) < 0.1


def test_an_unknown_light_is_estimated():
    """Without a light, a scene under incandescent light comes out far less yellow than its radiance is."""
    power = lamp("A")
    cube = np.kron(checker(power), np.ones((8, 8, 1)))
    given, estimated = (
        Photograph(electrons=(0, 0), mean=(0.1, 0.1), balance_error=0, light=light).develop(raw(cube), CAMERA, rng())
        for light in (EVEN, None)
    )
    red_to_blue = [
        np.divide(*decode_srgb(image[24:, 8:16] / 255).mean((0, 1))[[0, 2]]) for image in (given, estimated)
    ]
    assert red_to_blue[0] > 3
    assert 0.6 < red_to_blue[1] < 1.5


def test_cameras_of_a_folder_are_drawn(script, tmp_path):
    (tmp_path / "cameras").mkdir()
    for name, shift in (("a", 0), ("b", 25)):
        lines = [
            ",".join([str(nm), *(f"{np.exp(-(((nm - peak - shift) / 45) ** 2)):.6f}" for peak in (600, 540, 460))])
            for nm in range(400, 701, 10)
        ]
        (tmp_path / f"cameras/{name}.csv").write_text("\n".join(["nm,R,G,B", *lines]) + "\n")
    cameras = Cameras([Camera(tmp_path / f"cameras/{name}.csv") for name in "ab"])
    random = rng()
    assert {cameras.draw(random).source.stem for _ in range(20)} == {"a", "b"}

    (tmp_path / "s").mkdir()
    for i in range(6):
        write_cube(tmp_path / f"s/{i}.mat", np.float32(np.kron(checker(), np.ones((8, 8, 1)))))
    options = ("--path_gt", "s", "--camera", "cameras", "--preset", "photograph", "--light", "E")
    fixed = ("--electrons", 0, "--mean", 0.15, "--quality", 95)
    script("Dataset/render_rgb.py", *options, *fixed, "--RGB_dir", "r")
    script("Dataset/render_rgb.py", *options, *fixed, "--RGB_dir", "again")
    files = [(tmp_path / f"r/{i}.jpg").read_bytes() for i in range(6)]
    assert files == [(tmp_path / f"again/{i}.jpg").read_bytes() for i in range(6)]
    assert len(set(files)) == 6
    assert all(read_image(tmp_path / f"r/{i}.jpg").tagged for i in range(6))


@pytest.mark.parametrize(
    "options",
    [
        ("--preset", "photograph", "--mean", 0),
        ("--preset", "photograph", "--quality", 0),
        ("--light", "E"),
        ("--preset", "photograph", "--electrons", 0.5),
    ],
)
def test_options_that_make_no_sense(script, tmp_path, options):
    assert script("Dataset/render_rgb.py", *options, ok=False).returncode == 2


def test_an_unknown_light_or_camera(fails, tmp_path):
    fails("Dataset/render_rgb.py", "--preset", "photograph", "--light", "candle", names="candle")
    (tmp_path / "empty").mkdir()
    fails("Dataset/render_rgb.py", "--preset", "photograph", "--camera", tmp_path / "empty", names="empty")
