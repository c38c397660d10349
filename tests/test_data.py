import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import scipy.io
from helpers import DATA, ROOT, make_scenes, peak_memory
from torch.utils.data import DataLoader

from drcr.cube import WAVELENGTHS
from drcr.data import TrainPatches, ValidImages
from drcr.formats.mat import read_cube, write_cube
from drcr.preparation.prepare import prepare
from drcr.utils.files import DataError
from drcr.utils.parallel import in_order, processes_for

DATASET = DATA / "Dataset"


def test_patches_equal_the_released_ones_in_value_and_order(golden, prepared):
    numbers, patches = golden("pipeline"), TrainPatches(prepared[0])
    assert len(patches) == len(numbers["train_rgb"]) == 30
    for (rgb, cube), golden_rgb, golden_cube in zip(patches, numbers["train_rgb"], numbers["train_rad"], strict=True):
        assert np.array_equal(rgb, golden_rgb)
        assert np.array_equal(cube, golden_cube)


def test_validation_images_equal_the_released_ones(golden, prepared):
    numbers = golden("pipeline")
    whole, loaded = ValidImages(prepared[1], drop_rows=0), ValidImages(prepared[1])
    assert len(whole) == 2
    for i in range(2):
        for ours, cut, name in zip(whole[i], loaded[i], ("valid_rgb", "valid_rad"), strict=True):
            assert np.array_equal(ours, numbers[name][i])
            assert np.array_equal(cut, numbers[name][i][:, :-2])  # the released loader drops two rows


def test_skipped_scenes_are_named_and_counted(script, tmp_path):
    printed = script("train/train_data_preprocess.py", "--data_path", DATASET, "--patch_size", 16).stdout
    assert "skipped ARAD_1K_0002" in printed
    assert "2 of 3 scenes prepared, 1 skipped" in printed


def test_no_pixel_is_stored_twice(prepared):
    """Bytes on disk: what the float32 cubes and 8-bit images take, plus 2 %; all patches would be 3.2 times that."""
    stored = sum(path.stat().st_size for path in prepared[0].iterdir())
    raw = 2 * 38 * 48 * (31 * 4 + 3)
    assert raw < stored <= 1.02 * raw


def test_other_patches_cost_nothing_and_changed_sources_are_done_again(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 3)
    out = tmp_path / "out"
    prepare(spectral, rgb, out, 8, 4)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    assert prepare(spectral, rgb, out, 16, 8).n_patches == 3 * 1 * 2
    assert TrainPatches(out)[0][0].shape == (3, 16, 16)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.h5")} == times

    write_cube(spectral / "scene001.mat", np.full((20, 24, 31), 0.5))
    (spectral / "scene002.mat").unlink()
    (rgb / "scene002.png").unlink()
    prepare(spectral, rgb, out, 16, 8)
    patches = TrainPatches(out)
    assert len(patches) == 4
    assert (patches[2][1] == 0.5).all()
    assert not (out / "scene002.h5").exists()


def test_wrong_options_leave_finished_work_alone(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 2)
    prepare(spectral, rgb, tmp_path / "out", 8, 4)
    with pytest.raises(DataError, match="patch_size"):
        prepare(spectral, rgb, tmp_path / "out", 80, 4)
    assert len(TrainPatches(tmp_path / "out")) == 2 * 4 * 5


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_in_processes_the_same_files_come_out(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("drcr.utils.parallel.START_SECONDS", 0)
    spectral, rgb = make_scenes(tmp_path, 24)
    for i in (0, 13):  # one before the processes start, one in them
        cube = read_cube(spectral / f"scene{i:03}.mat").copy()
        cube[3, 4, 5] = -i
        write_cube(spectral / f"scene{i:03}.mat", cube)
    results, printed = [], []
    for n_workers in (0, 2):
        results.append(prepare(spectral, rgb, tmp_path / f"{n_workers}", 16, 8, n_workers=n_workers))
        printed.append([line for line in capfd.readouterr().out.splitlines() if "skipped scene" in line])
    assert results[0].skipped == results[1].skipped == ["scene000", "scene013"]
    assert len(results[1].scenes) == 22
    assert printed[0] == printed[1]
    assert len(printed[1]) == 2
    assert files_of(tmp_path / "0") == files_of(tmp_path / "2")
    # and again: nothing is left to do
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "2").glob("*.h5")}
    prepare(spectral, rgb, tmp_path / "2", 16, 8, n_workers=2)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "2").glob("*.h5")}


def test_a_bad_scene_in_a_process_ends_in_one_line(tmp_path, fails, monkeypatch):
    monkeypatch.setattr("drcr.utils.parallel.START_SECONDS", 0)
    spectral, rgb = make_scenes(tmp_path, 24)
    for part, source in (("Train_spectral", spectral), ("Train_RGB", rgb)):
        source.rename(tmp_path / part)
    (tmp_path / "Train_spectral/scene017.mat").write_bytes(b"no cube")
    options = ("--data_path", tmp_path, "--train_data_path", tmp_path / "out", "--patch_size", 16)
    fails("train/train_data_preprocess.py", *options, "--num_workers", 2, names="scene017.mat")
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left
    assert all(name.endswith(".h5") and not name.startswith(".") for name in left)


def test_processes_are_started_where_they_save_time():
    assert processes_for(7, 0.05, 2) == 0  # the quick benchmark
    assert processes_for(39, 0.2, 2) == 2  # 40 scenes of 482 x 512 pixels
    assert processes_for(39, 0.2, 1) == processes_for(39, 0.2, 0) == 0
    assert processes_for(3, 60, 8) == 3
    assert processes_for(0, 0.0, 8) == 0


def test_a_killed_process_ends_in_one_line():
    with pytest.raises(DataError, match="--num_workers 1"):
        list(in_order(kill_the_third, range(8), 2))


def kill_the_third(i):
    """Do what the system does to a process for which there is no memory."""
    if i == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def test_when_a_process_is_killed_the_others_finish_what_they_write(tmp_path):
    with pytest.raises(DataError, match="--num_workers 1"):
        list(in_order(write_or_die, [(0, tmp_path), (1, tmp_path)], 2))
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def write_or_die(job):
    """Write a file slowly, or, once that has begun, do what the system does when there is no memory."""
    i, folder = job
    if i == 1:
        while not (folder / "half").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "half").touch()
    time.sleep(1)
    (folder / "half").rename(folder / "whole")


def test_processes_end_with_a_killed_parent():
    code = "for _ in in_order(abs, range(9), 2): print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", f"import time\nfrom drcr.utils.parallel import in_order, processes_for\n{code}"]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    parent.stdout.readline()
    parent.kill()
    try:
        parent.communicate(timeout=300)  # the output ends when no process holds it any more
    except subprocess.TimeoutExpired:
        os.killpg(parent.pid, signal.SIGKILL)
        raise


def test_results_come_in_order_and_few_at_a_time():
    begun = []

    def jobs():
        for i in range(20):
            begun.append(i)
            yield i

    for i, result in enumerate(in_order(square_slowly_if_even, jobs(), 2)):
        assert result == i**2
        assert len(begun) <= i + 5
    assert list(in_order(square_slowly_if_even, range(3), 0)) == [0, 1, 4]


def square_slowly_if_even(i):
    """The odd ones overtake the even ones."""
    time.sleep(0.02 * (i % 2 == 0))
    return i**2


def test_only_its_own_files_are_removed(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.h5").write_bytes(b"not ours")
    prepare(spectral, rgb, out, 8, 4)
    assert (out / "precious.h5").exists()
    with pytest.raises(DataError, match="prepared for training"):
        prepare(spectral, rgb, out)
    assert len(TrainPatches(out)) == 2 * 4 * 5


def test_images_too_small_to_validate_with(tmp_path):
    with pytest.raises(DataError, match="at least 6 x 4"):
        prepare(*make_scenes(tmp_path, 1, size=(5, 24)), tmp_path / "out")


def test_killed_and_run_again_it_finishes(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 60, size=(64, 64))
    out = tmp_path / "prepared"
    code = (
        f"from drcr.preparation.prepare import prepare; prepare({str(spectral)!r}, {str(rgb)!r}, {str(out)!r}, 16, 8)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(list(out.glob("*.h5"))) < 5:
        time.sleep(0.001)
        assert process.poll() is None, "it finished before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= len(list(out.glob("*.h5"))) < 60
    # what a kill in the middle of a write leaves
    (out / ".drcr-0123456789abcdef.tmp").write_bytes(b"half")
    with pytest.raises(DataError, match="not finished"):
        TrainPatches(out)
    prepare(spectral, rgb, out, 16, 8)
    assert len(TrainPatches(out)) == 60 * 49
    assert sorted(path.suffix for path in out.iterdir()) == [".h5"] * 60 + [".json"]
    assert np.array_equal(
        TrainPatches(out)[49 * 7][1], read_cube(spectral / "scene007.mat")[:16, :16].transpose(2, 0, 1)
    )


def test_pairs_by_name_not_by_position(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 3)
    (spectral / "scene000.mat").unlink()
    (rgb / "scene002.png").unlink()
    with pytest.raises(DataError, match=r"scene002\.mat without RGB image"):
        prepare(spectral, rgb, tmp_path / "out")
    (spectral / "scene002.mat").unlink()
    with pytest.raises(DataError, match=r"scene000\.png without cube"):
        prepare(spectral, rgb, tmp_path / "out")
    (rgb / "scene000.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="same name"):
        prepare(spectral, rgb, tmp_path / "out")


def test_sixteen_bit_images_keep_their_bits(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 1)
    image = np.random.default_rng(2).integers(0, 50000, (20, 24, 3)).astype(np.uint16)
    cv2.imwrite(str(rgb / "scene000.png"), image)
    prepare(spectral, rgb, tmp_path / "out")
    expected = (image[..., ::-1].astype(np.float32) / np.float32(image.max())).transpose(2, 0, 1)
    assert np.array_equal(ValidImages(tmp_path / "out", drop_rows=0)[0][0], expected)


def test_worker_processes_read_the_same(prepared):
    patches = TrainPatches(prepared[0])
    alone = list(DataLoader(patches, 4))
    for (rgb, cube), (rgb2, cube2) in zip(alone, DataLoader(patches, 4, num_workers=2), strict=True):
        assert np.array_equal(rgb, rgb2)
        assert np.array_equal(cube, cube2)


def test_indices_past_the_end(prepared):
    for data in (TrainPatches(prepared[0]), ValidImages(prepared[1])):
        with pytest.raises(IndexError):
            data[len(data)]


def test_damaged_prepared_data_is_named(prepared):
    name = json.loads((prepared[0] / "index.json").read_text())["scenes"][0]
    path = prepared[0] / f"{name}.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{name}.h5: missing or damaged"):
        TrainPatches(prepared[0])
    with pytest.raises(DataError, match="prepared for validation"):
        TrainPatches(prepared[1])
    with pytest.raises(DataError, match="no prepared data"):
        ValidImages(prepared[0] / "nowhere")


def write_dark_scenes(folder):
    """Write three scenes of which two have values below 0.01: zeros, negative ones, small ones."""
    spectral, rgb = make_scenes(folder, 3)
    for i, (value, count) in enumerate(((0.0, 7), (-0.5, 4), (0.009, 3))):
        if i < 2:
            cube = read_cube(spectral / f"scene{i:03}.mat").copy()
            cube.reshape(-1)[:count] = value
            cube[5, 5, :3] = 0.009
            write_cube(spectral / f"scene{i:03}.mat", cube)
    return spectral, rgb


def test_dark_values_are_raised_to_a_floor_and_counted(script, tmp_path):
    spectral, rgb = write_dark_scenes(tmp_path)
    for part in ("Train", "Valid"):
        for kind, source in (("spectral", spectral), ("RGB", rgb)):
            (tmp_path / f"{part}_{kind}").symlink_to(source)
    floor = ("--non_positive", "floor", 0.01)
    printed = script("train/train_data_preprocess.py", "--data_path", tmp_path, "--patch_size", 16, *floor).stdout
    assert "3 of 3 scenes prepared, 0 skipped" in printed
    assert "dark values: 17 of 44,640 (0.04%), in 2 of 3 scenes, raised to 0.01" in printed
    assert script("train/valid_data_preprocess.py", "--data_path", tmp_path, *floor).stdout.count("17 of 44,640") == 1
    for data in (TrainPatches(tmp_path / "dataset/Train"), ValidImages(tmp_path / "dataset/Valid")):
        assert min(cube.min() for _, cube in data) == np.float32(0.01)
    cube = ValidImages(tmp_path / "dataset/Valid", drop_rows=0)[1][1].permute(1, 2, 0).numpy()
    assert np.array_equal(cube, np.maximum(read_cube(spectral / "scene001.mat"), np.float32(0.01)))
    printed = script("train/main.py", "--channels", 8, "--n_blocks", 0, "--end_epoch", 1).stdout
    assert "training data, dark values: 17 of 44,640" in printed
    assert "validation data, dark values: 17 of 44,640" in printed


def test_another_floor_prepares_anew(tmp_path):
    folders = write_dark_scenes(tmp_path)
    assert prepare(*folders, tmp_path / "out").skipped == ["scene000", "scene001"]
    assert sum(prepare(*folders, tmp_path / "out", floor=0.01).raised) == 17
    again = prepare(*folders, tmp_path / "out", floor=0.01)
    assert again.raised == [10, 7, 0]  # kept files tell the same
    assert min(cube.min() for _, cube in ValidImages(tmp_path / "out", drop_rows=0)) == np.float32(0.01)
    prepare(*folders, tmp_path / "out", floor=0.02)
    assert min(cube.min() for _, cube in ValidImages(tmp_path / "out", drop_rows=0)) == np.float32(0.02)
    assert prepare(*folders, tmp_path / "out").scenes == ["scene002"]


def test_scenes_of_one_folder_need_the_same_bands(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 2)
    write_cube(spectral / "scene001.mat", np.ones((20, 24, 31)), np.arange(31) * 10 + 420.0)
    with pytest.raises(DataError, match="31 bands, 420-720 nm, but scene000 has 31 bands, 400-700 nm"):
        prepare(spectral, rgb, tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()


def test_the_same_bands_in_other_units_are_the_same(tmp_path):
    spectral, rgb = make_scenes(tmp_path, 3)
    cube = read_cube(spectral / "scene001.mat").copy()
    scipy.io.savemat(spectral / "scene001.mat", {"cube": cube, "bands": np.float32(WAVELENGTHS / 1000)})
    write_cube(spectral / "scene002.mat", cube, WAVELENGTHS)
    assert len(prepare(spectral, rgb, tmp_path / "out").scenes) == 3


@pytest.mark.parametrize(
    "words", [("floor",), ("floor", 0), ("floor", 1e-46), ("floor", 5), ("skip", 1), ("roof", 0.1)]
)
def test_floors_that_are_none(script, words):
    process = script("train/valid_data_preprocess.py", "--data_path", DATASET, "--non_positive", *words, ok=False)
    assert "--non_positive: " in process.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [0, 2])
def test_peak_memory_does_not_grow_with_the_number_of_scenes(tmp_path, n_workers):
    """32 more scenes of 5 MB would be 160 MB, in each of 2 processes 80 MB."""
    rng = np.random.default_rng(0)
    cube, image = rng.random((200, 200, 31)) + 0.1, rng.integers(0, 256, (200, 200, 3), np.uint8)
    peaks = []
    code = (
        "import sys; from drcr.preparation import prepare; from drcr.utils import parallel; "
        "parallel.START_SECONDS = 0; "
    )
    for count in (4, 36):
        for part in ("spectral", "RGB"):
            (tmp_path / f"{count}/Valid_{part}").mkdir(parents=True)
        for i in range(count):
            write_cube(tmp_path / f"{count}/Valid_spectral/{i:02}.mat", cube)
            cv2.imwrite(str(tmp_path / f"{count}/Valid_RGB/{i:02}.png"), image)
        folders = [tmp_path / str(count) / f"Valid_{part}" for part in ("spectral", "RGB")]
        arguments = f"*sys.argv[1:], n_workers={n_workers}"
        peaks.append(peak_memory("-c", f"{code}prepare.prepare({arguments})", *folders, tmp_path / f"out{count}"))
    assert peaks[1] < peaks[0] + 20
