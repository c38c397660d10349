"""Make and judge the confidence tables of both networks in test/model, and draw a scene with its true error.

Needs the networks in test/model and the folder OUT of photographs.py. Writes test/model/NAME.confidence.npz,
docs/results/confidence_NAME.csv, the evaluation that docs/confidence.md sums up, and the images that it prepares to
OUT/confidence. Draws docs/confidence.png: of the photographs by held-out cameras the one with the median rank
correlation between expected and true angle. Takes about ten minutes on one core.

Both are calibrated with the ten scenes that photographs.py cross-validates with, each reconstructed by the network
that left it out: model.pth with photographs, linear.pth with linear images.
"""

import csv
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import DataError

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"model": "photographs", "linear": "linear"}
"""The kind of images that each network is for."""
PAGE = ROOT / "docs/confidence.md"


def evaluation(name: str) -> Path:
    """Return where the evaluation of a network in test/model is written."""
    return ROOT / f"docs/results/confidence_{name}.csv"


def median_photograph(path: Path) -> str:
    """Return the photograph by a held-out camera with the median rank correlation, from an evaluation.

    The portrait is left aside: nobody's face is needed to show this.
    """
    with open(path, newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["images"], row["table"]) == ("calibration images", "all terms")
            and not row["name"].startswith("face_")
        ]
    if not rows:
        raise DataError(f"{path}: has no photographs; run this command without --models")
    rows.sort(key=lambda row: float(row["rank_correlation"]))
    return rows[len(rows) // 2]["name"]


def folds_of(data: Path, kind: str) -> list[Path]:
    """Return the folders of the last trainings of photographs.py that left scenes out."""
    found = [path.parent for path in sorted((data / "last").glob(f"{kind}_*/test"))]
    if not found or not (data / f"last/{kind}_all/run/last.pth").exists():  # the last of these trainings
        raise DataError(f"{data}/last: the cross-validation is not complete; run photographs.py --stages train")
    return found


def prepared_of(out: Path, fold: Path, kind: str) -> Path:
    """Return where the images of a kind, of the scenes that a training left out, lie prepared."""
    return out / fold.name.rpartition("_")[2] / kind


def calibrate(data: Path, out: Path, network: Path, kind: str, judged: Path | None = None) -> None:
    """Make the table of a network, with scenes that are reconstructed by the networks that left them out."""
    (other,) = set(KINDS.values()) - {kind}
    folds = folds_of(data, kind)
    prepared = data / "prepared" / kind
    own, others = (" ".join(str(prepared_of(out, fold, which)) for fold in folds) for which in (kind, other))
    unseen = " ".join(f"{fold}/run/last.pth" for fold in folds)
    command = (
        f"calibrate_confidence.py --model_dir {network} --train_data_path {prepared}/pairs "
        f"--fit_data_path {prepared}/whole --valid_data_path {own} --unseen_model {unseen}"
    )
    step(ROOT / "train", command + (f" {unseen} --other_data_path {others} --evaluate {judged}" if judged else ""))


def draw(data: Path, out: Path) -> None:
    """Draw the levels, the expected and the true angle of a photograph for the page."""
    name = median_photograph(evaluation("model"))
    ((image, fold),) = (
        (path, fold) for fold in folds_of(data, "photographs") for path in (fold / "test/Valid_RGB").glob(f"{name}.*")
    )
    network = out / "network.pth"
    shutil.copyfile(fold / "run/last.pth", network)
    calibrate(data, out, network, "photographs")
    for folder in ("truth", "cubes", "figures"):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / "truth").mkdir()
    (out / "truth" / f"{name}.mat").symlink_to((fold / "test/Valid_spectral" / f"{name}.mat").resolve())
    step(ROOT / "test", f"test.py --confidence --model_dir {network} --RGB_dir {image} --result_dir {out}/cubes")
    step(
        ROOT / "test",
        f"figures.py --path_rec 'DRCR Net={out}/cubes' --path_gt {out}/truth --non_positive floor 0.01 --out "
        f"{out}/figures --format png --dpi 140 --num_workers 0",
    )
    shutil.copyfile(out / "figures" / f"{name}_confidence.png", PAGE.with_suffix(".png"))
    print(f"{os.path.relpath(PAGE.with_suffix('.png'))}: {name}")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the held-out images, make the tables, draw."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--photographs", type=Path, default="../photographs", help="folder OUT of photographs.py")
    add(
        "--models",
        nargs="*",
        metavar="NAME ...",
        default=("model", "linear"),
        help="the tables to make; none: only draw, from an evaluation that is there",
    )
    args = parser.parse_args(argv)

    data = args.photographs.resolve()
    out = data / "confidence"
    if shlex.quote(str(data)) != str(data):
        raise DataError(f"{data}: choose a folder without spaces and special characters")
    cli.hold(out)
    for kind in KINDS.values():
        for fold in folds_of(data, kind):
            step(
                ROOT / "train",
                f"valid_data_preprocess.py --data_path {fold}/test --valid_data_path {prepared_of(out, fold, kind)} "
                "--non_positive floor 0.01",
            )
    for name in args.models:
        if name not in KINDS:
            raise DataError(f"--models: must be model or linear, not {name}")
        calibrate(data, out, ROOT / f"test/model/{name}.pth", KINDS[name], evaluation(name))
    draw(data, out)


if __name__ == "__main__":
    cli.run(main)
