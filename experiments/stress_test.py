"""Make the tables and figures of docs/stress_test.md: test/stress_test.py on the networks in test/model.

Needs the folder that experiments/photographs.py wrote: its held-out scenes of CAVE, its held-out cameras and its
prepared training data. linear.pth is judged on linear images, model.pth on photographs. The condition "light" uses 20
simulated scenes with reflectances of luxpy that no training scene has.

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
        step(
            ROOT / "test",
            f"stress_test.py --preset {preset} --model_dir model/{name}.pth "
            f"--path_gt {data}/held_out/Valid_spectral "
            f"--reflectances_dir {out}/simulated/Valid_spectral --train_data_path {data}/prepared/{kind}/whole "
            f"--other_cameras {data}/cameras/held_out --non_positive floor 0.01 --result_dir {out / name}",
        )
        shutil.copyfile(out / name / "summary.csv", ROOT / f"docs/results/stress_{name}.csv")
        shutil.copyfile(out / name / "overview.png", ROOT / f"docs/stress_{name}.png")


if __name__ == "__main__":
    cli.run(main)
