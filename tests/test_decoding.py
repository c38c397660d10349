"""Containers whose tags, ranges or pages are easily read wrongly, and damaged files: used, or refused in one line."""

import io
import struct
import sys
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers import DATA
from PIL import Image, ImageCms

from drcr.images import read_image, read_rgb
from drcr.tags import encode_srgb
from drcr.utils.files import DataError

Y, X = np.mgrid[0:1:64j, 0:1:96j]
LINEAR = 0.05 + 0.9 * np.stack([X, Y, 0.5 * (1 - X) + 0.3 * Y], 2)
ENCODED = np.round(255 * encode_srgb(LINEAR)).astype(np.uint8)
SRGB_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3_ICC = imagecodecs.cms_profile(
    "rgb", whitepoint=(0.3127, 0.3290, 1), primaries=(0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1), gamma=2.2
)
GREY_ICC = imagecodecs.cms_profile("gray", gamma=2.2)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, values=ENCODED):
    """Return a PNG with further chunks after its header."""
    plain = cv2.imencode(".png", values[..., ::-1])[1].tobytes()
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(ENCODED).save(file, "JPEG", quality=98, **options)
    return file.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def close_to_linear(image, tolerance=0.02):
    return image.values.shape == LINEAR.shape and np.abs(image.values - LINEAR).mean() < tolerance


@pytest.mark.parametrize("nclx", [True, False])
def test_heic_with_a_profile(tmp_path, nclx):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install drcr[photographs]")
    Image.fromarray(ENCODED).save(tmp_path / "same.png", icc_profile=P3_ICC)
    file = heif.from_pillow(Image.fromarray(ENCODED))
    file.info["icc_profile"] = P3_ICC
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, save_nclx_profile=nclx)
    image = read_image(tmp_path / "a.heic")
    assert "ICC profile" in image.how
    assert np.abs(image.values - read_image(tmp_path / "same.png").values).max() < 0.02


@pytest.mark.parametrize("primary", [0, 1])
def test_the_primary_item_of_a_heic_counts(tmp_path, primary):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install drcr[photographs]")
    file = heif.HeifFile()
    for colours in ((9, 16), (1, 13)):
        file.add_from_pillow(Image.fromarray(ENCODED))
        names = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
        file[len(file) - 1].info["nclx_profile"] = dict(zip(names, (*colours, 6, 1), strict=True))
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, primary_index=primary)
    if primary:
        assert close_to_linear(read_image(tmp_path / "a.heic"))
    else:
        with pytest.raises(DataError, match=r"a\.heic: its tags say HDR by PQ"):
            read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("suffix", [".avif", ".heic", ".tif"])
def test_more_than_8_bits_have_their_own_full_scale(tmp_path, suffix, bits):
    values = np.round(encode_srgb(LINEAR) * (2**bits - 1)).astype(np.uint16)
    if suffix == ".avif":
        data = bytearray(imagecodecs.avif_encode(values, level=100, bitspersample=bits))
        struct.pack_into(">HH", data, data.find(b"colrnclx") + 8, 1, 13)
        write(tmp_path / "a.avif", data)
    elif suffix == ".heic":
        heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install drcr[photographs]")
        heif.options.SAVE_HDR_TO_12_BIT = bits == 12
        heif.from_bytes("RGB;16", (96, 64), (values << (16 - bits)).tobytes()).save(
            tmp_path / "a.heic", quality=-1, chroma=444
        )
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", bitspersample=bits)
    image = read_image(tmp_path / f"a{suffix}", "srgb")
    assert np.abs(image.values - LINEAR).max() < 0.02
    stored = read_image(tmp_path / f"a{suffix}", "linear")
    assert np.abs(stored.values - encode_srgb(LINEAR)).max() < 0.01


@pytest.mark.parametrize("layout", ["thumbnail first", "in a SubIFD", "thumbnail last"])
def test_the_picture_of_a_tiff_not_its_thumbnail(tmp_path, layout):
    small = np.ascontiguousarray(ENCODED[::4, ::4])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        if layout != "thumbnail last":
            within = {"subifds": 1} if "SubIFD" in layout else {}
            file.write(small, photometric="rgb", subfiletype=1, metadata=None, **within)
        file.write(ENCODED, photometric="rgb", subfiletype=0, metadata=None)
        if layout == "thumbnail last":
            file.write(small, photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), ENCODED)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_white_is_zero(tmp_path, bits):
    values = np.round(LINEAR[..., 0] * (2**bits - 1)).astype({8: np.uint8, 16: np.uint16}[bits])
    tifffile.imwrite(tmp_path / "a.tif", 2**bits - 1 - values, photometric="miniswhite")
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), np.repeat(values[..., None], 3, 2))


def cicp(*numbers):
    return chunk(b"cICP", bytes(numbers))


def test_png_of_narrow_range(tmp_path):
    narrow = np.round(16 + ENCODED * (219 / 255)).astype(np.uint8)
    image = read_image(write(tmp_path / "a.png", png(cicp(1, 13, 0, 0), values=narrow)))
    assert close_to_linear(image, 0.005)
    wide = np.uint16(np.round(LINEAR * 219 + 16) * 256)
    assert close_to_linear(read_image(write(tmp_path / "b.png", png(cicp(1, 8, 0, 0), values=wide))), 0.005)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        (chunk(b"tEXt", b"Comment\0hello")[:-4] + bytes(4), "tags are damaged"),  # a wrong checksum
        (chunk(b"gAMA", struct.pack(">I", 1)), "gamma 1e-05"),
        (cicp(9, 18, 0, 1), "HLG"),
        (struct.pack(">I", 0x7FFFFFF0) + b"tEXtabc", "cannot be decoded"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB_ICC)[:80]), "ICC profile is damaged"),
    ],
    ids=["checksum", "gAMA of 1", "HLG", "false length", "half a profile"],
)
def test_png_tags_that_cannot_be_used(tmp_path, tag, words):
    path = write(tmp_path / "a.png", png(chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB_ICC)) * (b"tEXt" in tag), tag))
    with pytest.raises(DataError, match=rf"a\.png: .*{words}"):
        read_image(path)


def test_primaries_without_a_curve_are_named(tmp_path, capsys):
    chrm = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    assert not read_image(write(tmp_path / "a.png", png(chrm))).tagged
    assert "a.png: ignored the primaries" in capsys.readouterr().err


def test_a_profile_for_grey_is_for_grey_images(tmp_path, capsys):
    image = read_image(write(tmp_path / "colour.jpg", jpeg(icc_profile=GREY_ICC)))
    assert np.array_equal(image.stored, read_image(write(tmp_path / "plain.jpg", jpeg())).stored)
    assert "colour.jpg: ignored its ICC profile" in capsys.readouterr().err


def bmp(kind, icc=b"", gamma=0):
    """Return a BMP of version 5, written out by hand."""
    height, width = ENCODED.shape[:2]
    header = struct.pack("<IiiHHIIiiII", 124, width, -height, 1, 24, 0, ENCODED.size, 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0) + kind + bytes(36) + struct.pack("<3I", *[gamma] * 3)
    header += struct.pack("<4I", 4, 124 + ENCODED.size, len(icc), 0)
    pixels = ENCODED[..., ::-1].tobytes()
    start = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(icc), 0, 0, 138)
    return start + header + pixels + icc


def test_bmp_of_version_5(tmp_path):
    for kind, icc in ((b"BGRs", b""), (b" niW", b""), (b"DEBM", SRGB_ICC)):
        image = read_image(write(tmp_path / "a.bmp", bmp(kind, icc)))
        assert image.tagged
        assert close_to_linear(image, 0.005)
    assert not read_image(write(tmp_path / "a.bmp", bmp(bytes(4)))).tagged
    for kind, gamma, words in (
        (b"KNIL", 0, "another file"),
        (bytes(4), 144179, "calibrated"),
        (b"DEBM", 0, "damaged"),
    ):
        with pytest.raises(DataError, match=rf"a\.bmp: .*{words}"):
            read_image(write(tmp_path / "a.bmp", bmp(kind, b"", gamma)))


def scan_cut(data, kind):
    middle = len(data) - (len(data) - data.rfind(b"\xff\xda")) // 2
    if kind == "cut":
        return data[:middle] + b"\xff\xd9"
    return data[:middle] + bytes(40) + data[middle + 40 :]


@pytest.mark.parametrize("kind", ["cut", "zeros"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str)
def test_jpeg_damaged_within_its_scan(tmp_path, capfd, kind, options):
    whole = jpeg(**options)
    assert close_to_linear(read_image(write(tmp_path / "whole.jpg", whole), "srgb"))
    with pytest.raises(DataError, match=r"a\.jpg: (cannot be decoded|part of its pixels)"):
        read_rgb(write(tmp_path / "a.jpg", scan_cut(whole, kind)))
    assert "Corrupt" not in capfd.readouterr().err  # libjpeg's own words are part of the error


def test_a_jpeg_in_the_colours_of_a_printer(tmp_path):
    Image.fromarray(ENCODED).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: .*CMYK"):
        read_rgb(tmp_path / "a.jpg")


def test_a_flat_jpeg_with_many_zeros_is_whole(tmp_path):
    flat = np.full((400, 400, 3), 200, np.uint8)
    flat[:9] = 20
    Image.fromarray(flat).save(tmp_path / "a.jpg", optimize=True)
    assert bytes(24) in (tmp_path / "a.jpg").read_bytes()
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - flat).mean() < 1


EXIF_OF = {
    "header": b"XX*\0\x08\0\0\0" + bytes(20),
    "empty": b"",
    "outside": b"II*\0\xff\xff\xff\x7f" + bytes(20),
    "loop": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4),
    "rational": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, 5, 1, 65535) + bytes(4),
    "count": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x0112, 3, 0xFFFFFFFF, 6) + bytes(4),
    "text": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", 0x8769, 2, 4, b"abc\0") + bytes(4),
}


@pytest.mark.parametrize("kind", EXIF_OF)
def test_damaged_exif(tmp_path, kind):
    """The pixels are whole, and so is the profile beside it."""
    block = b"Exif\0\0" + EXIF_OF[kind]
    plain = jpeg(icc_profile=SRGB_ICC)
    with_exif = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    image = read_image(write(tmp_path / "a.jpg", with_exif))
    assert "ICC profile" in image.how
    assert close_to_linear(image) or image.stored.shape == (96, 64, 3)  # OpenCV takes the first of a false count
    read_image(write(tmp_path / "a.png", png(chunk(b"eXIf", EXIF_OF[kind]))))
    file = io.BytesIO()
    Image.fromarray(ENCODED).save(file, "WEBP", lossless=True, exif=block)
    read_image(write(tmp_path / "a.webp", file.getvalue()))


def test_exif_that_cannot_be_read_is_named(tmp_path, capsys):
    file = io.BytesIO()
    Image.fromarray(ENCODED).save(file, "WEBP", lossless=True, exif=b"Exif\0\0" + EXIF_OF["header"])
    read_image(write(tmp_path / "a.webp", file.getvalue()))
    assert "a.webp: its EXIF tags are damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_larger_than_pillows_limit(tmp_path):
    """A PNG of 199.8 megapixels is read; Pillow reads its tags, and would refuse its size."""
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((12240, 16320), 99, np.uint8))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"gAMA", struct.pack(">I", 100000)) + data[33:])
    assert read_image(tmp_path / "a.png").stored.shape == (12240, 16320, 3)


@pytest.mark.parametrize("claim", ["channels", "sparse", "rows", "cut"])
def test_tiff_that_states_more_than_it_holds(tmp_path, claim):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ENCODED, photometric="rgb", compression="zlib" if claim == "rows" else None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages.first.tags
        if claim == "sparse":
            tags["StripByteCounts"].overwrite([0] * len(file.pages.first.databytecounts))
        elif claim != "cut":
            tags[{"channels": "SamplesPerPixel", "rows": "ImageLength"}[claim]].overwrite(60000)
    if claim == "cut":
        write(path, path.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"a\.tif: "):
        read_rgb(path)


@pytest.mark.parametrize("library", ["PIL", "imagecodecs", "tifffile", "pillow_heif"])
def test_a_file_whose_tags_need_a_missing_library_is_refused(tmp_path, monkeypatch, library):
    """With the six packages alone: files without tags are read, others are not taken as untagged."""
    data = {
        "PIL": [("a.png", png(chunk(b"gAMA", struct.pack(">I", 45455)))), ("a.jpg", jpeg(exif=exif_of_srgb()))],
        "imagecodecs": [("b.jpg", jpeg(icc_profile=SRGB_ICC))],
        "tifffile": [("a.tif", cv2.imencode(".tif", ENCODED)[1].tobytes())],
        "pillow_heif": [("a.avif", imagecodecs.avif_encode(ENCODED))],
    }[library]
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    for name, content in data:
        with pytest.raises(DataError, match=rf"{name}: .*drcr\["):
            read_image(write(tmp_path / name, content))
    for name, content in (("plain.png", png()), ("plain.jpg", cv2.imencode(".jpg", ENCODED)[1].tobytes())):
        assert not read_image(write(tmp_path / name, content)).tagged


def exif_of_srgb():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    return exif.tobytes()


def test_bright_images_without_tags_are_named(tmp_path):
    assert read_image(write(tmp_path / "a.png", png())).looks_encoded
    dark = np.round(ENCODED * 0.3).astype(np.uint8)
    assert not read_image(write(tmp_path / "a.png", png(values=dark))).looks_encoded
    assert not read_image(write(tmp_path / "a.png", png(chunk(b"sRGB", b"\0")))).looks_encoded


@pytest.mark.parametrize("command", ["test/test.py", "test/baseline.py"])
def test_a_broken_image_is_skipped_and_the_rest_goes_on(script, fails, prepared_once, tmp_path, command):
    (tmp_path / "in").mkdir()
    for name, data in (
        ("a.png", png()),
        ("b.jpg", scan_cut(jpeg(), "cut")),
        ("c.png", b"no image"),
        ("d.png", png()),
    ):
        write(tmp_path / "in" / name, data)
    options = ("--RGB_dir", "in", "--result_dir", "out")
    if command == "test/test.py":
        options += ("--model_dir", DATA / "model_c16_b2.pth")
        fails(command, *options, "--strict", names="b.jpg")
        assert not (tmp_path / "out").exists()
    else:
        options += ("--train_data_path", prepared_once[0])
    message = fails(command, *options, names="2 images skipped")
    assert "b.jpg, c.png" in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mat", "d.mat"]


def test_a_few_bytes_before_the_end_of_a_jpeg_are_named(tmp_path, capsys):
    """Some cameras fill up so; the pixels are whole."""
    whole = jpeg()
    filled = read_rgb(write(tmp_path / "a.jpg", whole[:-2] + bytes(8) + whole[-2:]))
    assert np.array_equal(filled, read_rgb(write(tmp_path / "whole.jpg", whole)))
    assert "a.jpg: Corrupt JPEG data: 3 extraneous" in capsys.readouterr().err
