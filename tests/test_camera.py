import dataclasses

import cv2
import numpy as np
import pytest
from helpers import DATA, SHARED

from drcr.camera import PRESETS, Camera, Imaging
from drcr.cube import WAVELENGTHS
from drcr.utils.files import DataError

RNG = np.random.default_rng(0)
NTIRE_GAINS = (2.2933984, 1, 1.62308182)


@pytest.fixture
def table(tmp_path):
    """Return a camera in the NTIRE file's columns."""
    path = tmp_path / "camera.csv"
    lines = [f"{nm},{nm / 700},{(nm - 300) / 400},0.1,{400 / nm}" for nm in range(360, 751, 5)]
    path.write_text("\n".join(["Wavelength[nm],R,G1,G2,B", *lines]) + "\n")
    return path


def test_projection_is_the_sum_over_bands(table):
    gains = NTIRE_GAINS
    cube = RNG.random((3, 4, 31))
    rgb = Camera(table, gains)(cube)
    curves = np.stack([WAVELENGTHS / 700, (WAVELENGTHS - 300) / 400, 400 / WAVELENGTHS], 1)
    # to 1e-3: the file's 5 nm steps are interpolated linearly
    expected = np.einsum("hwb,bc->hwc", cube, curves) * gains
    np.testing.assert_allclose(rgb, expected, rtol=1e-3)
    assert Camera(table, gains).white() == Camera(table, gains)(np.ones((1, 1, 31)))[0, 0, 1]
    assert Camera(table).white() == pytest.approx(1)
    assert (Camera(table)(-cube) == 0).all()


@pytest.mark.parametrize("name", ["Nikon 5100 (NPL)", "Sigma SDMerill (NPL)"])
def test_measured_cameras_by_name_are_neutral_in_white_light(name):
    camera = Camera(name)
    np.testing.assert_allclose(camera(np.ones((1, 1, 31)))[0, 0], 1)
    peaks = camera.wavelengths[camera.sensitivities.argmax(0)]
    assert 650 >= peaks[0] > peaks[1] > peaks[2] >= 420


def published_camera():
    path = SHARED / "data/ntire2022/RGB_Camera_QE.csv"
    if not path.is_file():
        pytest.skip("../shared/data/ntire2022/RGB_Camera_QE.csv is not here")
    return path


def test_ntire_file():
    path = published_camera()
    camera = Camera(path, NTIRE_GAINS)
    first = [float(cell) for cell in path.read_text().splitlines()[1].split(",")]
    assert camera.wavelengths[0] == first[0]
    assert camera.sensitivities[0].tolist() == [first[1], first[2], first[4]]  # R, G1, B


@pytest.fixture
def ntire_camera(tmp_path):
    """Return the challenge's camera at the cubes' bands, from the recorded response; with its gains."""
    golden = np.load(DATA / "ntire_rgb.npz")
    lines = [
        ",".join(map(str, (nm, *curve))) for nm, curve in zip(WAVELENGTHS, golden["curves"].tolist(), strict=True)
    ]
    path = tmp_path / "ntire.csv"
    path.write_text("\n".join(["nm,R,G,B", *lines]))
    return Camera(path, NTIRE_GAINS)


@pytest.mark.parametrize("number", [1, 2])
def test_the_challenges_images_exactly(ntire_camera, number):
    """Linear to rounding; 8 bits, truncated, and after JPEG 65 in every value."""
    golden = np.load(DATA / "ntire_rgb.npz")
    linear = ntire_camera(golden[f"cube_{number}"])
    np.testing.assert_allclose(linear, golden[f"linear_{number}"], rtol=1e-12)
    imaging = dataclasses.replace(PRESETS["real-world"], electrons=0)
    image = imaging.develop(linear, RNG, ntire_camera.white())
    assert np.array_equal(image, golden[f"eight_bit_{number}"])
    decoded = cv2.imdecode(np.frombuffer(imaging.encode(image), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded[..., ::-1], golden[f"jpeg_{number}"])


def test_the_challenges_noise(ntire_camera):
    """Relative noise of an even cube of 0.5, channel by channel; 8 bits would hide it, so the exposure is large."""
    golden = np.load(DATA / "ntire_rgb.npz")
    flat = ntire_camera(np.full((500, 500, 31), 0.5))
    np.testing.assert_allclose(flat[0, 0], golden["flat_linear"], rtol=1e-12)
    image = (
        dataclasses.replace(PRESETS["real-world"], mean=0.5).develop(flat, RNG, ntire_camera.white()).astype(float)
    )
    # truncation to steps of 1 adds 1/12 to the variance
    noise = np.sqrt(image.var((0, 1)) - 1 / 12) / (image.mean((0, 1)) + 0.5)
    np.testing.assert_allclose(noise, golden["flat_noise_relative_std"], rtol=0.02)


@pytest.mark.parametrize("name", ["Nikon 5100 (NPL)", "Sigma SDMerill (NPL)"])
@pytest.mark.parametrize("gains", [None, (1, 1, 1), (3, 1, 2)])
def test_electrons_at_white_for_any_camera(name, gains):
    """A white surface in green has as many photo-electrons as the option says."""
    camera = Camera(name, gains)
    linear = camera(np.ones((300, 300, 31)))
    image = Imaging(electrons=100, mean=0.4).develop(linear, RNG, camera.white())[..., 1].astype(float)
    assert image.std() / image.mean() == pytest.approx(0.1, rel=0.03)


def test_bands_count_by_their_width():
    """Bands of unequal width give the colour that even ones do; where all are equal, nothing changes."""
    camera = Camera()
    even = np.arange(450, 651, 1.0)
    uneven = np.concatenate([np.arange(450, 550, 4.0), np.arange(550, 651, 10.0)])
    spectrum = lambda nm: (0.2 + 0.7 / (1 + np.exp((nm - 560) / 15)))[None, None]  # noqa: E731
    np.testing.assert_allclose(camera(spectrum(uneven), uneven), camera(spectrum(even), even), rtol=0.02)
    cube = RNG.random((2, 2, 31))
    curves = np.stack([np.interp(WAVELENGTHS, camera.wavelengths, curve) for curve in camera.sensitivities.T], 1)
    np.testing.assert_allclose(camera(cube), cube @ (curves / curves.sum(0)), rtol=1e-12)
    assert camera(np.ones((1, 1, 1)), np.array([550.0])).shape == (1, 1, 3)


def test_other_spellings_and_bad_files(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("nm,red,green,blue\n400,1,2,3\n700,4,5,6\n")
    assert Camera(path).sensitivities.tolist() == [[1, 2, 3], [4, 5, 6]]
    for text in ("", "nm,red,green\n400,1,2\n700,1,2\n", "nm,r,g,b\n400,1,2,x\n", "nm,r,g,b\n700,1,1,1\n400,1,1,1\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"c\.csv: "):
            Camera(path)
    with pytest.raises(DataError, match="no such file"):
        Camera(tmp_path / "none.csv")
    with pytest.raises(DataError, match="Nikon"):
        Camera("Kodak Brownie")
    path.write_text("um,r,g,b\n0.4,1,1,1\n0.7,1,1,1\n")
    with pytest.raises(DataError, match="nanometres"):
        Camera(path)(np.ones((1, 1, 31)))


def test_photon_noise_has_its_statistics():
    """With n electrons at white, 1, value v has standard deviation sqrt(v / n) before exposure."""
    linear = np.full((400, 400, 3), 0.5)
    image = Imaging(electrons=50, mean=0.5).develop(linear, RNG) / 127.5 * 0.5
    assert image.mean() == pytest.approx(0.5, rel=0.01)
    assert image.std() == pytest.approx(np.sqrt(0.5 / 50), rel=0.03)


def test_exposure_and_clipping():
    linear = RNG.random((200, 200, 3)) ** 3
    image = Imaging(electrons=0).develop(linear, RNG)
    assert image.dtype == np.uint8
    assert image.mean() / 255 == pytest.approx(0.18, abs=0.002)
    linear[0, 0] = 1000
    assert Imaging(electrons=0).develop(linear, RNG)[0, 0].tolist() == [255, 255, 255]
