"""Image files of every kind: decoded as other programs show them, or refused in one line."""

import cv2
import numpy as np
import pytest
import tifffile
from helpers import DATA, SHARED
from PIL import Image, ImageOps

from drcr.formats.mat import read_cube
from drcr.images import IMAGE_SUFFIXES, find_images, normalise_rgb, read_image, read_rgb
from drcr.utils.files import DataError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(1, 255, (12, 18, 3), np.uint8)
WIDE = RNG.integers(1, 65535, (12, 18, 3), np.uint16)


def test_a_jpeg_without_tags_is_opencvs_bit_for_bit(golden):
    path = DATA / "Dataset/Valid_RGB/ARAD_1K_0901.jpg"
    expected = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read_rgb(path), expected)
    image = read_image(path)
    assert image.how == "taken as linear (no tags)"
    assert np.array_equal(image.stored, expected)
    assert np.array_equal(image.normalised(), np.float32(expected) / np.float32(expected.max()))


def test_arad_1k_is_linear():
    path = SHARED / "data/arad/RGB/ARAD_1K_0912.jpg"
    if not path.is_file():
        pytest.skip("../shared/data/arad/RGB/ARAD_1K_0912.jpg is not here")
    assert not read_image(path).tagged


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif", ".jfif", ".avif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
def test_orientation_as_pillow_shows_it(tmp_path, suffix, orientation):
    if suffix == ".bmp" and orientation > 1:
        pytest.skip("BMP has no orientation")
    smooth = np.kron(PICTURE, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {".webp": {"lossless": True}, ".jfif": {"format": "JPEG", "quality": 100, "subsampling": 0}}.get(suffix, {})
    how |= {".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})
    Image.fromarray(smooth).save(tmp_path / f"a{suffix}", exif=exif, **how)
    with Image.open(tmp_path / f"a{suffix}") as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    ours = read_rgb(tmp_path / f"a{suffix}")
    assert ours.shape == shown.shape
    assert np.abs(ours - shown).max() <= (6 if suffix in (".jfif", ".avif") else 0)


@pytest.mark.parametrize("options", [
    {}, {"planarconfig": "separate"}, {"compression": "lzw"}, {"compression": "zlib", "predictor": True},
    {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"},
], ids=str)  # fmt: skip
def test_tiff_of_16_bits(tmp_path, options):
    values = np.ascontiguousarray(WIDE.transpose(2, 0, 1)) if "planarconfig" in options else WIDE
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)
    for _ in range(3):
        assert np.array_equal(read_rgb(tmp_path / "a.tif"), WIDE)


def test_tiff_by_opencv_and_with_further_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), WIDE[..., ::-1])
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), WIDE)
    alpha = np.concatenate([WIDE, WIDE[..., :1]], 2)
    tifffile.imwrite(tmp_path / "b.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_rgb(tmp_path / "b.tif"), WIDE)
    tifffile.imwrite(tmp_path / "c.tif", WIDE[..., 0])
    assert np.array_equal(read_rgb(tmp_path / "c.tif"), np.repeat(WIDE[..., :1], 3, 2))
    Image.fromarray(PICTURE).quantize(200).save(tmp_path / "d.tif")  # a palette
    assert (
        np.abs(
            read_rgb(tmp_path / "d.tif").astype(int) - np.asarray(Image.open(tmp_path / "d.tif").convert("RGB"))
        ).max()
        == 0
    )


def test_tiff_of_several_pages(tmp_path):
    planes = np.ascontiguousarray(WIDE.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "composite.tif", planes, imagej=True, metadata={"axes": "CYX"})
    assert np.array_equal(read_rgb(tmp_path / "composite.tif"), WIDE)
    tifffile.imwrite(tmp_path / "stack.tif", planes, photometric="minisblack")
    with pytest.raises(DataError, match=r"stack\.tif: .*3 pages"):
        read_rgb(tmp_path / "stack.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.float32(WIDE), photometric="rgb")
    with pytest.raises(DataError, match=r"float\.tif: its values are float32"):
        read_rgb(tmp_path / "float.tif")


def test_grey_and_transparent(tmp_path):
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(PICTURE[..., :1], 3, 2))
    Image.fromarray(np.concatenate([PICTURE, PICTURE[..., :1]], 2)).save(tmp_path / "alpha.png")
    assert np.array_equal(read_rgb(tmp_path / "alpha.png"), PICTURE)


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install drcr[photographs]")
    smooth = np.kron(PICTURE, np.ones((16, 16, 1), np.uint8))
    heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / "a.heic", quality=-1, chroma=444)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.heic").read_bytes())  # as some phones' transfers name it
    for name in ("a.heic", "b.jpg"):
        image = read_image(tmp_path / name)
        assert np.abs(image.stored - read_image(tmp_path / "a.heic").stored).max() == 0
        assert np.abs(read_rgb(tmp_path / name).astype(int) - smooth).max() <= 4
        assert image.how == "decoded from sRGB (as tagged)"  # the colour box of the file


def write_dng(path, linear, neutral=(1, 1, 1), white=None):
    """Write a linear DNG, by tifffile: sensor values, a matrix from XYZ to linear sRGB, the white as shot.

    `neutral` are the sensor's values of white, which the file states unless `white`, x and y, is given: None or ().
    """
    matrix = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)
    rational = [part for value in matrix for part in (round(value * 10000), 10000)]
    as_shot = [part for value in (neutral if white is None else white) for part in (round(value * 10000), 10000)]
    stated = [(50728 if white is None else 50729, "2I", len(as_shot) // 2, tuple(as_shot), True)] if as_shot else []
    sensor = np.round(linear * neutral * 65535).astype(np.uint16)
    tifffile.imwrite(
        path,
        sensor,
        photometric=34892,
        planarconfig="contig",
        extratags=[
            (50706, "B", 4, (1, 4, 0, 0), True),
            (50707, "B", 4, (1, 4, 0, 0), True),
            (50708, "s", 0, "Test camera", True),
            (271, "s", 0, "Test", True),
            (272, "s", 0, "Test camera", True),
            (50721, "2i", 9, tuple(rational), True),
            (50778, "H", 1, 21, True),
            (50714, "H", 3, (0, 0, 0), True),
            (50717, "H", 3, (65535, 65535, 65535), True),
            *stated,
        ],
    )
    return path


@pytest.mark.parametrize("neutral", [(1, 1, 1), (0.5, 1, 0.7)], ids=["neutral", "white balance as shot"])
def test_dng_is_developed_linear(tmp_path, neutral):
    pytest.importorskip("rawpy", reason="needs rawpy: pip install drcr[photographs]")
    y, x = np.mgrid[0:1:96j, 0:1:128j]
    linear = 0.05 + 0.9 * np.stack([x, y, 0.5 * (1 - x) + 0.3 * y], 2)
    image = read_image(write_dng(tmp_path / "a.dng", linear, neutral))
    assert image.tagged
    assert "RAW" in image.how
    assert image.stored.dtype == np.uint16
    assert np.abs(image.values - linear).max() < 2e-3


def test_dng_without_a_neutral(tmp_path, capsys):
    """The white point that the file states, else daylight: never the average as grey. It is said."""
    pytest.importorskip("rawpy", reason="needs rawpy: pip install drcr[photographs]")
    y, x = np.mgrid[0:1:96j, 0:1:128j]
    linear = 0.05 + 0.4 * np.stack([x, y, 0.3 * (1 - x)], 2)  # not grey on average
    daylight = read_image(write_dng(tmp_path / "a.dng", linear, white=())).values
    assert np.abs(daylight - linear).max() < 2e-3
    assert "a.dng: states no white balance" in capsys.readouterr().err
    # grey under light of 2856 K: 0.4476, 0.4074
    grey = np.repeat(linear[..., :1], 3, 2)
    of_light = np.array([1.8452, 0.8261, 0.2333]) / 1.8452  # the matrix times XYZ of that white
    lamp = read_image(write_dng(tmp_path / "b.dng", grey, of_light, white=(0.4476, 0.4074))).values
    assert np.ptp(lamp / lamp.mean(), axis=2).max() < 0.02


def test_dng_by_another_name_and_monochrome(tmp_path):
    pytest.importorskip("rawpy", reason="needs rawpy: pip install drcr[photographs]")
    linear = np.linspace(0.1, 0.9, 96 * 128 * 3).reshape(96, 128, 3)
    image = read_image(write_dng(tmp_path / "a.tif", linear))
    assert "camera RAW" in image.how
    assert np.abs(image.values - linear).max() < 2e-3
    tifffile.imwrite(
        tmp_path / "b.dng",
        np.uint16(linear[..., 0] * 65535),
        photometric="minisblack",
        extratags=[
            (50706, "B", 4, (1, 4, 0, 0), True),
            (271, "s", 0, "Test", True),
            (272, "s", 0, "M", True),
            (50708, "s", 0, "M", True),
        ],
    )
    data = bytearray((tmp_path / "b.dng").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.dng") as file:
        at = file.pages.first.tags["PhotometricInterpretation"].valueoffset
    data[at : at + 2] = (34892).to_bytes(2, "little")
    (tmp_path / "b.dng").write_bytes(data)
    values = read_image(tmp_path / "b.dng").values
    assert values.shape == linear.shape
    assert np.corrcoef(values[..., 1].ravel(), linear[..., 0].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("library", ["pillow_heif", "rawpy"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library):
    name, data = {
        "pillow_heif": ("a.heic", b"\0\0\0\x18ftypheic" + bytes(50)),
        "rawpy": ("a.nef", b"II*\0" + bytes(50)),
    }[library]
    (tmp_path / name).write_bytes(data)
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(DataError, match=rf"{name}: .*drcr\[photographs\]"):
        read_rgb(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jpg", b"", "cannot be decoded"),
        ("a.jpg", b"\xff\x0a" + bytes(90), "JPEG XL"),
        ("a.png", b"<!DOCTYPE html><html></html>", "HTML"),
        ("a.jpg", b"%PDF-1.4", "PDF"),
        ("a.tif", b"II*\0" + bytes(60), "TIFF"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), "HEIC"),
        ("a.cr2", b"II*\0" + bytes(500), "camera RAW"),
        ("a.avif", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(500), "cannot be decoded"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: .*{words}"):
        read_rgb(tmp_path / name)


def test_cut_off(tmp_path):
    Image.fromarray(np.kron(PICTURE, np.ones((9, 9, 1), np.uint8))).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", WIDE, photometric="rgb")
    for name in ("a.jpg", "a.tif"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(DataError, match=f"{name}: cannot be decoded"):
            read_rgb(tmp_path / name)


def test_a_folder_with_other_files(tmp_path, capsys):
    for name in ("a.jpg", "b.webp", "c.jfif"):
        Image.fromarray(PICTURE).save(tmp_path / name, "WEBP" if "webp" in name else "JPEG")
    for name in ("notes.txt", "film.mp4", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images(tmp_path)] == ["a.jpg", "b.webp", "c.jfif"]
    said = capsys.readouterr().err
    assert "notes.txt" in said
    assert "film.mp4" in said
    assert "hidden" not in said
    assert {".heic", ".dng", ".avif"} <= set(IMAGE_SUFFIXES)


def test_the_commands_decode_and_say_so(script, tmp_path, prepared):
    """A tagged photograph gives the cube of its linear picture; untagged, it does so with --encoding srgb."""
    from drcr.tags import encode_srgb

    linear = np.kron(RNG.integers(20, 255, (5, 6, 3)), np.ones((8, 8, 1))) / 255
    linear[0, 0] = 1
    photo = np.uint8(np.round(255 * encode_srgb(linear)))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    for folder in ("tagged", "untagged", "linear"):
        (tmp_path / folder).mkdir()
    Image.fromarray(photo).save(tmp_path / "tagged/a.webp", lossless=True, exif=exif)
    Image.fromarray(photo).save(tmp_path / "untagged/a.png")
    cv2.imwrite(str(tmp_path / "linear/a.png"), np.uint16(np.round(65535 * linear))[..., ::-1])
    runs = {"tagged": (), "untagged": ("--encoding", "srgb"), "linear": ()}
    for command, options in (
        ("test/test.py", ("--model_dir", DATA / "model_c16_b2.pth")),
        ("test/baseline.py", ("--train_data_path", prepared[0])),
    ):
        cubes = {}
        for folder, encoding in runs.items():
            out = tmp_path / command[-7:-3] / folder
            said = script(command, "--RGB_dir", tmp_path / folder, "--result_dir", out, *options, *encoding).stdout
            assert {"tagged": "as tagged", "untagged": "--encoding srgb", "linear": "as linear"}[folder] in said
            cubes[folder] = read_cube(out / "a.mat")
        spread = np.ptp(cubes["linear"])
        assert np.abs(cubes["tagged"] - cubes["linear"]).max() < 0.02 * spread
        assert np.array_equal(cubes["tagged"], cubes["untagged"])
        script(command, "--RGB_dir", tmp_path / "untagged", "--result_dir", out, *options)
        assert np.abs(read_cube(out / "a.mat") - cubes["linear"]).max() > 0.05 * spread


def test_normalise():
    assert normalise_rgb(PICTURE).max() == 1
    assert np.array_equal(normalise_rgb(PICTURE[:2], 200.0), np.float32(PICTURE[:2]) / np.float32(200))
