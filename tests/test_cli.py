"""Options of all commands: one name for one idea, other names taken, unknown ones answered by a similar one."""

import pytest
from helpers import DATA, ROOT

COMMANDS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("train", "test", "Dataset")
    for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_an_unknown_option(script, command):
    needed = ("--source", ".") if "import" in command else ()
    process = script(command, *needed, "--num-workes", 0, "--no-such-thing", ok=False)
    assert process.returncode == 2
    assert "unknown option --" in process.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [
        ("test/test.py", "--rgb-dir", "--RGB_dir"),
        ("test/test.py", "--resultdir", "--result_dir"),
        ("train/main.py", "--batch_size", "--batchSize"),
        ("Dataset/simulate.py", "--outt", "--data_path"),  # by its other name, --out
    ],
)
def test_a_similar_option_is_named(script, command, wrong, right):
    last = script(command, wrong, "x", ok=False).stderr.splitlines()[-1]
    assert wrong in last
    assert last.endswith(f"did you mean {right}?")


def test_other_names_are_taken(script, tmp_path):
    for names in (("--spectral_dir", "--rgb_dir"), ("--path_gt", "--RGB_dir")):
        options = (f"{names[0]}={DATA / 'Dataset/Valid_spectral'}", names[1], tmp_path / names[1])
        assert "2 images in" in script("Dataset/render_rgb.py", *options).stdout


def test_an_encoding_may_be_written_as_its_name_is(script, tmp_path):
    options = ("--RGB_dir", DATA / "Dataset/Valid_RGB", "--model_dir", DATA / "model_c16_b2.pth")
    printed = script("test/test.py", *options, "--encoding", "sRGB", "--result_dir", tmp_path / "out").stdout
    assert "decoded from sRGB" in printed
