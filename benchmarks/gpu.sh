#!/bin/sh
# Measures on a machine with a GPU that has Python and PyTorch but no package registry; at most 8 minutes.
#
#   sh benchmarks/gpu.sh [--device=cuda|cpu] [--clips=FOLDER] [--out=FILE.json] [--minutes=8] [--parts=NAME,NAME]
#
# Wheels of missing packages are taken from the folder .whl, which you bring:
#   pip download --no-deps --only-binary :all: -d .whl PACKAGE ...
# Clips are the sounds of the folder .clips, or of --clips; without them, the parts that read files are left out.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
if [ -d .whl ]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links .whl .whl/*.whl ||
        echo "some wheels of .whl do not fit this Python; going on with what is there"
fi
exec env PYTHONPATH="$PWD:$PWD/benchmarks:$PWD/tests" "$PYTHON" benchmarks/gpu.py "$@"
