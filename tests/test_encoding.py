"""Images of any encoding as linear light: files made by other libraries than those that read them."""

import struct
import zlib

import colour
import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from drcr import tags
from drcr.images import apparent_exponent, describe_decoding, doubt_encoding, read_image, read_rgb
from drcr.utils.files import DataError

SPACES = {
    name: colour.RGB_COLOURSPACES[known].copy()
    for name, known in (("sRGB", "sRGB"), ("Display P3", "Display P3"), ("Adobe RGB", "Adobe RGB (1998)"))
}
for space in SPACES.values():  # from the primaries: the published ones are rounded to four digits
    space.use_derived_transformation_matrices(True)


def picture(height=40, width=60):
    """Return a linear picture (H, W, 3) with the primaries of sRGB, from 0.01 to 1, unlike along both axes."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    rgb = 0.01 + 0.99 * np.stack([x, y, (1 - x) * y * 0.8 + 0.1], 2)
    rgb[0, 0] = 1
    return rgb


def encoded(linear, space):
    """Return a linear picture as encoded values of a colour space, by colour-science."""
    values = colour.RGB_to_RGB(linear, SPACES["sRGB"], SPACES[space])
    if space == "Adobe RGB":  # the exact exponent of its specification
        return np.clip(values, 0, 1) ** (256 / 563)
    return np.clip(colour.cctf_encoding(values, "sRGB"), 0, 1)


def profile(space):
    """Return an ICC profile of a space, written out by hand: matrix and curves as the ICC specification has them."""
    primaries = SPACES[space]
    to_d50 = colour.adaptation.matrix_chromatic_adaptation_VonKries(
        colour.xy_to_XYZ(primaries.whitepoint), [0.9642, 1.0, 0.8249], transform="Bradford"
    )
    columns = (to_d50 @ primaries.matrix_RGB_to_XYZ).T

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    if space == "Adobe RGB":
        curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 563) + bytes(2)
    else:
        curve = (
            b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
        )
    name = space.encode()
    text = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78)
    blocks = {b"desc": text + bytes(-len(text) % 4), b"wtpt": b"XYZ " + bytes(4) + fixed((0.9642, 1.0, 0.8249))}
    blocks |= {
        key: b"XYZ " + bytes(4) + fixed(column)
        for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    blocks |= {key: curve for key in (b"rTRC", b"gTRC", b"bTRC")}
    at, table, body = 128 + 4 + 12 * len(blocks), struct.pack(">I", len(blocks)), b""
    for key, block in blocks.items():
        table += key + struct.pack(">II", at + len(body), len(block))
        body += block
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed((0.9642, 1.0, 0.8249))
    return header.ljust(128, b"\0") + table + body


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, values, *chunks):
    """Write a PNG of 8 or 16 bits by hand, with further chunks before its pixels."""
    height, width, _ = values.shape
    depth = 8 * values.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def icc_chunk(icc):
    return chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))


def quantised(values, bits):
    return np.round(values * (2**bits - 1)).astype({8: np.uint8, 16: np.uint16}[bits])


def assert_same_picture(values, space, bits, linear=None):
    """Compare with the linear picture within the rounding of the stored bits, through the curve's steepest slope."""
    linear = picture() if linear is None else linear
    # half a step, times the slope of the curve (at most 2.3) and the gain of the primaries (at most 1.6); the numbers
    # in a profile have 16 bits themselves
    allowed = 0.5 / (2**bits - 1) * 2.3 * 1.6 + 3e-5
    assert values.dtype == np.float32
    assert np.abs(values - linear).max() < allowed


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("space", SPACES)
def test_png_with_icc_profile(tmp_path, space, bits):
    path = write_png(tmp_path / "a.png", quantised(encoded(picture(), space), bits), icc_chunk(profile(space)))
    image = read_image(path)
    assert image.tagged
    assert space in image.how
    assert_same_picture(image.values, space, bits)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("space", SPACES)
def test_tiff_with_icc_profile(tmp_path, space, bits):
    path, values = tmp_path / "a.tif", quantised(encoded(picture(), space), bits)
    if bits == 8:
        Image.fromarray(values).save(path, icc_profile=profile(space), compression="tiff_lzw")
    else:  # no other library at hand writes a profile into 16 bits
        tifffile.imwrite(path, values, photometric="rgb", iccprofile=profile(space))
    assert_same_picture(read_image(path).values, space, bits)


@pytest.mark.parametrize("space", SPACES)
def test_jpeg_and_webp_with_icc_profile(tmp_path, space):
    """A smooth picture survives a JPEG of quality 100 within a few steps."""
    values = Image.fromarray(quantised(encoded(picture(), space), 8))
    values.save(tmp_path / "a.jpg", quality=100, subsampling=0, icc_profile=profile(space))
    values.save(tmp_path / "a.webp", lossless=True, icc_profile=profile(space))
    assert_same_picture(read_image(tmp_path / "a.webp").values, space, 8)
    assert np.abs(read_image(tmp_path / "a.jpg").values - picture())[1:, 1:].mean() < 0.005


def test_profile_of_littlecms(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write_png(tmp_path / "a.png", quantised(encoded(picture(), "sRGB"), 16), icc_chunk(icc))
    assert_same_picture(read_image(path).values, "sRGB", 16)


def exif_bytes(space, interop=None, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA001] = space
    if interop:
        exif.get_ifd(0x8769)[0xA005] = {1: interop}
    return exif


@pytest.mark.parametrize(("space", "interop", "name"), [(1, None, "sRGB"), (65535, "R03", "Adobe RGB")])
def test_exif_colour_space(tmp_path, space, interop, name):
    values = Image.fromarray(quantised(encoded(picture(), name), 8))
    values.save(tmp_path / "a.webp", lossless=True, exif=exif_bytes(space, interop))
    image = read_image(tmp_path / "a.webp")
    assert image.how == f"decoded from {name} (as tagged)"
    assert_same_picture(image.values, name, 8)


def test_exif_colour_space_of_a_tiff(tmp_path):
    """A TIFF file written out by hand: header, pixels, bits per sample, EXIF directory, image directory."""
    values = quantised(encoded(picture(), "sRGB"), 16)
    height, width, _ = values.shape
    bits = 8 + values.nbytes
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
    ]
    entries += [(277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, values.nbytes), (34665, 4, 1, bits + 6)]
    directory = (
        struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    )
    exif = struct.pack("<HHHIHHI", 1, 0xA001, 3, 1, 1, 0, 0)
    data = b"II*\0" + struct.pack("<I", bits + 6 + len(exif)) + values.tobytes() + struct.pack("<3H", 16, 16, 16)
    (tmp_path / "a.tif").write_bytes(data + exif + directory)
    image = read_image(tmp_path / "a.tif")
    assert image.how == "decoded from sRGB (as tagged)"
    assert_same_picture(image.values, "sRGB", 16)


def test_grey_profile(tmp_path):
    """A grey ICC profile with the curve of gamma 2, written out by hand."""
    icc = profile("Adobe RGB").replace(b"RGB XYZ ", b"GRAYXYZ ", 1).replace(b"gTRC", b"kTRC")
    icc = icc.replace(struct.pack(">IH", 1, 563), struct.pack(">IH", 1, 512))
    grey = quantised(picture()[..., 0] ** 0.5, 8)
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=icc)
    values = read_image(tmp_path / "a.png").values
    assert np.abs(values - picture()[..., :1]).max() < 0.005


def gama_and_chrm(gamma, space):
    points = (*SPACES[space].whitepoint, *SPACES[space].primaries.ravel())
    chrm = struct.pack(">8I", *(round(100000 * value) for value in points))
    return chunk(b"gAMA", struct.pack(">I", gamma)) + chunk(b"cHRM", chrm)


@pytest.mark.parametrize(
    ("tag", "exponent", "name"),
    [
        (chunk(b"sRGB", b"\0"), None, "sRGB"),
        (chunk(b"gAMA", struct.pack(">I", 45455)), 2.2, "gamma 2.2"),
        (chunk(b"gAMA", struct.pack(">I", 100000)), 1, "linear"),
        (gama_and_chrm(100000, "Display P3"), "P3", "gamma 1, Display P3"),
        (chunk(b"cICP", bytes((12, 13, 0, 1))), None, "Display P3"),
        (chunk(b"cICP", bytes((1, 8, 0, 1))), 1, "linear"),
        # cICP before the others
        (chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"cICP", bytes((1, 13, 0, 1))), None, "sRGB"),
    ],
    ids=["sRGB", "gAMA", "gAMA 1", "gAMA and cHRM", "cICP P3", "cICP linear", "gAMA and cICP"],
)
def test_png_chunks(tmp_path, tag, exponent, name):
    if exponent == "P3":
        values = colour.RGB_to_RGB(picture(), SPACES["sRGB"], SPACES["Display P3"])
    else:
        values = picture() ** (1 / exponent) if exponent else encoded(picture(), name)
    image = read_image(write_png(tmp_path / "a.png", quantised(values, 16), tag))
    assert image.tagged
    assert name in image.how
    assert np.abs(image.values - picture()).max() < 1e-4


def test_hdr_is_refused(tmp_path):
    path = write_png(tmp_path / "a.png", quantised(picture(), 8), chunk(b"cICP", bytes((9, 16, 0, 1))))
    with pytest.raises(DataError, match=r"a\.png: its tags say HDR"):
        read_image(path)
    assert read_image(path, "linear").stored.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_files_without_tags_are_linear_unless_told(tmp_path, suffix):
    values = quantised(encoded(picture(), "sRGB"), 8)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), values[..., ::-1])
    auto, srgb, linear = (read_image(tmp_path / f"a{suffix}", encoding) for encoding in ("auto", "srgb", "linear"))
    assert not auto.tagged
    assert auto.stored.dtype == np.uint8
    assert np.array_equal(auto.stored, read_rgb(tmp_path / f"a{suffix}"))
    assert np.array_equal(auto.stored, linear.stored)
    assert np.array_equal(srgb.values, np.float32(tags.decode_srgb(auto.stored / 255)))
    assert np.allclose(auto.values, auto.stored / 255)


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_formats_that_are_srgb_by_default(tmp_path, suffix):
    values = Image.fromarray(quantised(encoded(picture(), "sRGB"), 8))
    values.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {"quality": 100}))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.photograph
    assert "the default of" in image.how or "as tagged" in image.how  # AVIF cannot be written without
    assert np.abs(image.values - picture())[1:, 1:].mean() < 0.005
    assert read_image(tmp_path / f"a{suffix}", "linear").stored.dtype == np.uint8


def test_options_and_tags(tmp_path):
    """Tags go before --encoding srgb, which is for files without; linear ignores them."""
    path = write_png(
        tmp_path / "a.png", quantised(encoded(picture(), "Display P3"), 8), icc_chunk(profile("Display P3"))
    )
    assert np.array_equal(read_image(path, "srgb").values, read_image(path).values)
    as_stored = read_image(path, "linear")
    assert np.array_equal(as_stored.stored, read_rgb(path))
    assert as_stored.encoded
    assert "although tagged" in as_stored.how
    assert not read_image(path).encoded
    assert not read_image(write_png(tmp_path / "b.png", read_rgb(path)), "linear").encoded


def test_description(tmp_path):
    write_png(tmp_path / "a.png", quantised(picture(), 8), chunk(b"sRGB", b"\0"))
    write_png(tmp_path / "b.png", quantised(picture(), 8))
    found = [read_image(tmp_path / f"{name}.png") for name in "aab"]
    line = describe_decoding(found)
    assert "2 images decoded from sRGB (as tagged)" in line
    assert "1 image taken as linear (no tags)" in line
    assert "--encoding srgb" in line
    assert "--encoding" not in describe_decoding(found[:2])


def test_damaged_profile(tmp_path):
    path = write_png(tmp_path / "a.png", quantised(picture(), 8), icc_chunk(profile("sRGB")[:150]))
    with pytest.raises(DataError, match=r"a\.png: its ICC profile"):
        read_image(path)


@pytest.mark.parametrize(("curve", "low", "high"), [(lambda x: x, 0.9, 1.1), (tags.encode_srgb, 0.3, 0.6)])
def test_apparent_exponent(curve, low, high):
    rng = np.random.default_rng(0)
    linear = np.clip(picture(), 0.01, 1)
    cube = linear.mean(2, keepdims=True) * rng.uniform(0.3, 0.6) * np.ones(5)
    image = np.round(255 * curve(linear * np.exp(rng.normal(0, 0.05, linear.shape)).clip(0, 1)))
    assert low < apparent_exponent(image, cube) < high
    assert np.isnan(apparent_exponent(image, np.full(cube.shape, 0.5)))


def test_doubts(tmp_path):
    """An image read in the wrong encoding is told from its cube, in both directions."""
    linear = np.clip(picture(), 0.03, 1)
    cube = linear.mean(2, keepdims=True) * np.ones(5) * 0.7
    write_png(tmp_path / "linear.png", quantised(linear, 8))
    write_png(tmp_path / "photograph.png", quantised(tags.encode_srgb(linear), 8))
    for name, right, wrong, option in (("linear", "auto", "srgb", "linear"), ("photograph", "srgb", "auto", "srgb")):
        assert doubt_encoding(read_image(tmp_path / f"{name}.png", right), cube) is None
        doubt = doubt_encoding(read_image(tmp_path / f"{name}.png", wrong), cube)
        assert doubt is not None
        assert f"--encoding {option}" in doubt
