#!/bin/sh
# Installs the lowest versions that pyproject.toml allows into a fresh environment and runs the unit tests there; run by hand.
#
#   benchmarks/lowest_versions.sh [FOLDER]        # default: lowest-venv, made anew
#   PYTHON=python3.10 benchmarks/lowest_versions.sh
#   LOWEST_ARGUMENTS=--dry-run benchmarks/lowest_versions.sh   # only: can they be installed together?
#
# Take the lowest Python that pyproject.toml allows: old packages have no wheels for new ones. More arguments for pip, such as an index
# with CPU builds of PyTorch, go into PIP_EXTRA_INDEX_URL and the like.
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
cd tests && "$folder/bin/python" -m pytest -q --rootdir . unit -p no:cacheprovider
