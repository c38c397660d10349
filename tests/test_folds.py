"""experiments/photographs.py: no held-out scene is trained on."""

from pathlib import Path

import pytest
from helpers import load_script


@pytest.mark.parametrize(("kind", "scored"), [("photographs", ["p101", "p102"]), ("linear", ["l0"])])
def test_a_fold_trains_on_no_scene_that_it_scores(kind, scored, tmp_path):
    pytest.importorskip("matplotlib")
    photographs = load_script("experiments/photographs.py")
    scenes = ["cloth", "face", "face_paint", "beads"]
    trained = {"photographs": [f"p{i}" for i in range(1, 7)], "linear": ["l0", "l1", "l2"]}
    folder = tmp_path / "folds"
    for name in ("spectral", *trained["photographs"], *trained["linear"], "p101", "p102"):
        (folder / name).mkdir(parents=True)
        for scene in scenes:
            (folder / name / f"{scene}.{'mat' if name == 'spectral' else 'jpg'}").touch()
    photographs.split_fold(folder, kind, ["face", "beads"], tmp_path / "fold")

    def found(part):
        return {path.stem for path in (tmp_path / "fold" / part).iterdir()}

    kept = ["cloth", "face_paint"]
    assert found("scenes") == set(kept)
    for part in ("RGB", "spectral"):
        assert found(f"whole/Train_{part}") == {f"{scene}_{name}" for scene in kept for name in trained[kind]}
        assert found(f"whole/Valid_{part}") == {f"cloth_{name}" for name in trained[kind]}
        assert found(f"test/Valid_{part}") == {f"{scene}_{name}" for scene in ("face", "beads") for name in scored}


@pytest.mark.parametrize("method", ["network", "polynomial", "linear"])
@pytest.mark.parametrize("kind", ["photographs", "linear"])
def test_each_held_out_image_is_scored_once_by_what_knows_nothing_of_its_scene(kind, method, tmp_path):
    pytest.importorskip("matplotlib")
    photographs = load_script("experiments/photographs.py")
    scored = []
    for command in photographs.cross_validated(tmp_path, kind, method):
        paths = [Path(word) for word in command.split() if word.startswith(str(tmp_path))]
        (learnt,) = (path for path in paths if "last" in path.parts)
        left_out = photographs.LAST[learnt.parts[-3].removeprefix(f"{kind}_")]
        names = [path.stem for path in paths if path != learnt]
        assert {name.rpartition("_")[0] for name in names} <= set(left_out)
        scored += names
    endings = photographs.KINDS[kind]
    assert sorted(scored) == sorted(scene + ending for scene in photographs.HELD_OUT for ending in endings)
