#!/usr/bin/env bash
# Runs one mlcicd command with the interpreter that setup.sh found. `exec`: the runner's signals must reach it.
set -euo pipefail
export MLCICD_PRIVATE_ENV="${MLCICD_PRIVATE:-}"
# -I: a json.py in the user's repository, or their PYTHONPATH, must not become part of us.
exec "${MLCICD_PYTHON_OF_ACTION:?the setup step did not run}" -I -m mlcicd "$@"
