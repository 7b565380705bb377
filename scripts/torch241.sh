#!/usr/bin/env bash
# The device tests on torch 2.4.1, the version that torch-directml pins. Not part of CI: torch 2.4.1 and the
# CUDA libraries its wheel wants take 5 GB.
#
#   scripts/torch241.sh [--venv FOLDER] [--directml]
#
# --directml also unpacks torch-directml 0.2.5 beside it, which ends the process that asks it for a card where
# there is none, and shows that `anyolo devices` survives that and says what is wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv="${XDG_CACHE_HOME:-$HOME/.cache}/anyolo-torch241"
directml=""
while [ $# -gt 0 ]; do
  case "$1" in
    --venv) venv="$2"; shift 2 ;;
    --directml) directml=yes; shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
python="$venv/bin/python"
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

if [ ! -x "$python" ]; then
  step "install into $venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$python" -m pip install --quiet torch==2.4.1 "numpy<2" hatchling pytest hypothesis \
    "opencv-python-headless>=4.9" "faster-coco-eval>=1.6" "matplotlib>=3.8" "PyYAML>=6" "rich>=13.7" \
    "pydantic>=2.7" "annotated-types>=0.6" "onnx>=1.16" "onnxruntime>=1.18" "onnxslim>=0.1.50"
fi
"$python" -c 'import torch, numpy; print("torch", torch.__version__, "numpy", numpy.__version__)'

step "tests"
"$python" -m pytest -q -p no:cacheprovider tests/conformance/test_devices.py tests/unit/test_devices_*.py \
  tests/unit/test_api_listing.py

[ -n "$directml" ] || exit 0
step "torch-directml"
wheel="$venv/directml"
[ -d "$wheel" ] || "$python" -m pip install --quiet --no-deps --target "$wheel" torch-directml==0.2.5.dev240914
export PYTHONPATH="$wheel"

# Runs the words after the first two, which say what has to be printed and the exit code it has to end with.
expect() {
  local wanted="$1" code="$2" shown
  shift 2
  printf '\n$ %s\n' "$*"
  set +e
  shown=$("$@" 2>&1)
  local ended=$?
  set -e
  printf '%s\n' "$shown"
  if [ $ended -ne "$code" ] || ! tr -s ' \n' ' ' <<<"$shown" | grep -qF -- "$wanted"; then
    echo "FAILED: expected exit code $code and: $wanted" >&2
    exit 1
  fi
}
anyolo=("$python" -m anyolo.cli)
predict=(predict model=yolov8n source=x.jpg device=dml)

expect "torch_directml is installed and fails here (OSError: libd3d12.so" 0 "${anyolo[@]}" devices
expect "torch_directml is installed and fails here (OSError: libd3d12.so" 5 "${anyolo[@]}" "${predict[@]}"

# Its own folder holds stubs of the missing libraries. With them it loads, and when it is asked for a card it
# ends the process by a signal, or in some runs with an error of a random number.
export LD_LIBRARY_PATH="$wheel/torch_directml"
for run in 1 2 3 4 5; do
  printf '\nasked directly, run %s: ' "$run"
  code=0
  "$python" -c 'import torch_directml as d; print(d.device_count())' 2>&1 | tail -n 1 || code=$?
  echo "exit code $code"
  expect "torch_directml is installed and" 5 "${anyolo[@]}" "${predict[@]}"
done
expect "torch_directml is installed and" 0 "${anyolo[@]}" devices
unset LD_LIBRARY_PATH PYTHONPATH
step "done"
