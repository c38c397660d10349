#!/usr/bin/env bash
# The paper's number in one go: check the download, prepare, train, reconstruct, score ARAD_1K. Started again, it goes
# on where it stopped. Arguments: the data folder, the folder for results, then any options of train/main.py.
#   experiments/arad.sh Dataset arad
# LAUNCH="torchrun --nproc_per_node 4" uses four GPUs. CROP=ntire2022 (default) scores the part that the challenge
# scored, the central 226 x 256 pixels; CROP=none the whole image, as the released code.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
data=$(realpath "${1:-$root/Dataset}") out=$(realpath -m "${2:-$root/arad}")
shift $(($# < 2 ? $# : 2))
mkdir -p "$out"

for part in Train Valid; do
    cubes=$(find "$data/${part}_spectral" -name 'ARAD_1K_*.mat' 2> /dev/null | wc -l)
    images=$(find "$data/${part}_RGB" -name 'ARAD_1K_*.jpg' 2> /dev/null | wc -l)
    echo "$part: $cubes cubes, $images images (ARAD_1K: $([ $part = Train ] && echo 897 || echo 50) of each)"
    if [ "$cubes" = 0 ] || [ "$cubes" != "$images" ]; then
        echo "error: $data: ${part}_spectral and ${part}_RGB do not belong together; complete the download" >&2
        exit 1
    fi
done
if [ ! -e "$out/checked" ]; then
    (cd "$root/Dataset" && python check.py --data_path "$data")
    touch "$out/checked"
fi
cd "$root/train"
# an index is written last, so a folder with one is complete
[ -e "$out/Train/index.json" ] || python train_data_preprocess.py --data_path "$data" --patch_size 128 --stride 64 \
    --train_data_path "$out/Train"
[ -e "$out/Valid/index.json" ] || python valid_data_preprocess.py --data_path "$data" --valid_data_path "$out/Valid"
${LAUNCH:-python} main.py --train_data_path "$out/Train" --valid_data_path "$out/Valid" --outf "$out/RealWorldResults" \
    --resume auto "$@" &
trap 'kill $!' INT TERM # a signal to this script alone stops the training, too, which saves
wait $! || { wait $! || exit; }
cd "$root/test"
python test.py --RGB_dir "$data/Valid_RGB" --model_dir "$out/RealWorldResults/best.pth" --result_dir "$out/test_results"
python compute_mrae.py --path_rec "$out/test_results" --path_gt "$data/Valid_spectral" --crop "${CROP:-ntire2022}"
