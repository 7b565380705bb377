#!/bin/sh
# An environment with the real PyTorch 1.3.1 (what Cambricon's is built on), for tests/e2e/test_mlu_torch13.py:
#     tests/mlu/torch13.sh /tmp/torch13 && ANYOLO_TORCH13=/tmp/torch13/bin/python pytest -m slow tests/e2e/test_mlu_torch13.py
# Needs a Python 3.7 (PYTHON37=...) and fetches 700 MB from PyPI; never part of the default tests.
set -e
"${PYTHON37:-python3.7}" -m venv "$1"
"$1/bin/pip" install -q --no-deps "torch==1.3.1"
"$1/bin/pip" install -q "numpy<1.20" "pillow<10"
"$1/bin/python" -c "import torch; print('PyTorch', torch.__version__)"
