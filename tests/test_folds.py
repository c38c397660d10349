"""experiments/photographs.py: no held-out scene is trained on."""

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
