"""Make the tables and figures of docs/stress_test.md: test/stress_test.py on the networks of 14 scenes.

Needs the folder that photographs.py wrote, and the images that confidence.py prepared there. The networks are those
that photographs.py trains on 14 scenes, because those in test/model know the held-out scenes, too. The one for linear
images is judged on linear images, the other on photographs. The condition "light" uses 20 simulated scenes with
reflectances of luxpy that no training scene has.

Writes OUT/linear and OUT/model, docs/results/stress_NAME.csv and docs/stress_NAME.png.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from drcr.utils import cli
from drcr.utils.cli import step
from drcr.utils.files import DataError

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"linear": ("linear", "real-world"), "model": ("photographs", "photograph")}
"""The folder of each network's training data, and the images that it is for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Judge the networks, and put the results into docs/."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default="../photographs", help="folder that photographs.py wrote")
    add("--out", type=Path, default="../stress", help="folder for the results")
    args = parser.parse_args(argv)
    data, out = args.data.resolve(), args.out.resolve()
    if shlex.quote(f"{data}{out}") != f"{data}{out}":
        raise DataError(f"{out}: choose folders without spaces and special characters")
    out.mkdir(parents=True, exist_ok=True)
    step(
        ROOT / "Dataset",
        f"simulate.py --data_path {out}/simulated --n_train 0 --n_valid 20 --size 128 128 --radii 8 96 "
        "--illuminants E --reflectances luxpy --seed 2026 --preset clean --keep",
    )
    for name, (kind, preset) in KINDS.items():
        prepared = data / "prepared" / kind
        unseen = " ".join(str(path) for path in sorted(data.glob(f"confidence/*/{kind}")))
        if not unseen:
            raise DataError(f"{data}/confidence: no prepared images are there; run confidence.py first")
        step(
            ROOT / "train",
            f"calibrate_confidence.py --model_dir {data / kind}/last.pth --train_data_path {prepared}/pairs "
            f"--fit_data_path {prepared}/whole --valid_data_path {unseen}",
        )
        step(
            ROOT / "test",
            f"stress_test.py --preset {preset} --model_dir {data / kind}/last.pth "
            f"--path_gt {data}/held_out/Valid_spectral "
            f"--reflectances_dir {out}/simulated/Valid_spectral --train_data_path {prepared}/whole "
            f"--other_cameras {data}/cameras/held_out --non_positive floor 0.01 --result_dir {out / name}",
        )
        shutil.copyfile(out / name / "summary.csv", ROOT / f"docs/results/stress_{name}.csv")
        shutil.copyfile(out / name / "overview.png", ROOT / f"docs/stress_{name}.png")


if __name__ == "__main__":
    cli.run(main)
