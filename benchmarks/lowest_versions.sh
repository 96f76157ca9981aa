#!/bin/sh
# Installs the lowest versions that pyproject.toml allows into a fresh environment and runs tests of the core there: make lowest.
#
#   benchmarks/lowest_versions.sh [FOLDER]        # default: lowest-venv, made anew
#   PYTHON=python3.11 benchmarks/lowest_versions.sh
#   LOWEST_ARGUMENTS=--dry-run benchmarks/lowest_versions.sh   # only: can they be installed together?
#
# Take a Python for which every one of these versions has a wheel, and the index that has a CPU build of PyTorch for it. More arguments for
# pip, such as another index, go into PIP_EXTRA_INDEX_URL and the like.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-lowest-venv}
python=${PYTHON:-python3}

rm -rf "$folder"
"$python" -m venv "$folder"
folder=$(cd "$folder" && pwd)
"$folder/bin/python" -m pip install --quiet --upgrade pip

# "name[extra]>=1.2; marker" becomes "name==1.2", for what is needed to run and to train.
"$folder/bin/python" - "$folder/lowest.txt" <<'EOF'
import re
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

with open("pyproject.toml", "rb") as stream:
    project = tomllib.load(stream)["project"]
with open(sys.argv[1], "w") as stream:
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["train"]]:
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\w.]+)", requirement)
        if match is None:
            sys.exit(f"pyproject.toml: {requirement!r} has no lower bound; give it one, as in name>=1.2")
        stream.write(f"{match[1]}=={match[2]}\n")
EOF
cat "$folder/lowest.txt"

# shellcheck disable=SC2086
"$folder/bin/python" -m pip install ${LOWEST_ARGUMENTS:-} --constraint "$folder/lowest.txt" ".[train]" pytest hypothesis
if [ "${LOWEST_ARGUMENTS:-}" = "--dry-run" ]; then
    exit 0
fi
"$folder/bin/python" -m pip check
# The installed package, not this folder: the tests run from beside them.
cd tests && "$folder/bin/python" -m pytest -q --rootdir . -p no:cacheprovider golden unit/test_inverters.py unit/test_model_refusals.py \
    unit/test_outputs.py unit/test_packed_loss.py unit/test_prompts.py unit/test_thinking.py \
    unit/test_training.py::test_dev_pairs_are_evaluated_and_logged
