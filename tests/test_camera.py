import numpy as np
import pytest
from helpers import SHARED

from drcr.camera import Camera, Imaging
from drcr.matfile import WAVELENGTHS
from drcr.utils.files import DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    """Return a camera in the NTIRE file's columns."""
    path = tmp_path / "camera.csv"
    lines = [f"{nm},{nm / 700},{(nm - 300) / 400},0.1,{400 / nm}" for nm in range(360, 751, 5)]
    path.write_text("\n".join(["Wavelength[nm],R,G1,G2,B", *lines]) + "\n")
    return path


def test_projection_is_the_sum_over_bands(table):
    gains = (2.2933984, 1, 1.62308182)
    cube = RNG.random((3, 4, 31))
    rgb = Camera(table, gains)(cube)
    curves = np.stack([WAVELENGTHS / 700, (WAVELENGTHS - 300) / 400, 400 / WAVELENGTHS], 1)
    # to 1e-3: the file's 5 nm steps are interpolated linearly
    expected = np.einsum("hwb,bc->hwc", cube, curves) * gains / curves[:, 1].sum()
    np.testing.assert_allclose(rgb, expected, rtol=1e-3)
    assert Camera(table, gains)(np.ones((1, 1, 31)))[0, 0, 1] == pytest.approx(1)
    assert (Camera(table)(-cube) == 0).all()


@pytest.mark.parametrize("name", ["Nikon 5100 (NPL)", "Sigma SDMerill (NPL)"])
def test_measured_cameras_by_name_are_neutral_in_white_light(name):
    camera = Camera(name)
    np.testing.assert_allclose(camera(np.ones((1, 1, 31)))[0, 0], 1)
    peaks = camera.wavelengths[camera.sensitivities.argmax(0)]
    assert 650 >= peaks[0] > peaks[1] > peaks[2] >= 420


def test_ntire_file():
    path = SHARED / "data/ntire2022/RGB_Camera_QE.csv"
    if not path.is_file():
        pytest.skip("../shared/data/ntire2022/RGB_Camera_QE.csv is not here")
    camera = Camera(path, (2.2933984, 1, 1.62308182))
    first = [float(cell) for cell in path.read_text().splitlines()[1].split(",")]
    assert camera.wavelengths[0] == first[0]
    assert camera.sensitivities[0].tolist() == [first[1], first[2], first[4]]  # R, G1, B
    np.testing.assert_allclose(camera(np.ones((1, 1, 31)))[0, 0], 1, atol=0.1)


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
    """With n electrons at value 1, value v has standard deviation sqrt(v / n) before exposure."""
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
