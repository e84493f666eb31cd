#!/usr/bin/env bash
# Locks what the actions install: every dependency of mlcicd with the router and Sigstore, by hash, for all platforms.
set -euo pipefail
bin=${1:?usage: tools/lock.sh BIN}
"$bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --extra router --extra sigstore --output-file actions/_shared/requirements.txt "${@:2}" pyproject.toml
