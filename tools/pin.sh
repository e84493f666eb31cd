#!/usr/bin/env bash
# Pins the starter workflows to a commit of this repository: tools/pin.sh COMMIT VERSION, e.g. tools/pin.sh HEAD v0.1.0
set -euo pipefail
commit=$(git rev-parse --verify "${1:?usage: tools/pin.sh COMMIT VERSION}^{commit}")
version=${2:?usage: tools/pin.sh COMMIT VERSION}
sed -i -E "s|(uses: mlcicd/mlcicd[a-z/-]*)@[0-9a-f]{40} # .*|\1@$commit # $version|" workflows-templates/*.yml
grep -hoE 'uses: mlcicd/mlcicd[a-z/-]*@.*' workflows-templates/*.yml | sort | uniq -c
