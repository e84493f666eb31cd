#!/usr/bin/env bash
# Makes the development environment: tools/setup.sh .venv
# With uv if it is found, else pip; both install the same things from pyproject.toml and the example's requirements.
set -euo pipefail
venv=${1:?usage: tools/setup.sh VENV}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "mlcicd needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Try: make PYTHON=python3.11 ..." >&2
  exit 2
}
example=examples/flight-delays/requirements.txt
if command -v uv >/dev/null 2>&1; then
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
  uv pip install --quiet --python "$venv/bin/python" --editable '.[router]' --group dev --requirement "$example"
else
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  # pip reads dependency groups since 25.1.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --editable '.[router]' --group dev --requirement "$example"
fi

# What the actions install, kept as files: their tests use no network.
"$venv/bin/python" -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
  --requirement actions/_shared/requirements.txt --dest "$venv/wheels"
