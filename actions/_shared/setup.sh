#!/usr/bin/env bash
# Makes (or finds) the private environment that mlcicd runs in, and hands its interpreter to the next step.
#
# It is installed from a hash-locked file into $RUNNER_TEMP, once for all mlcicd actions of a job. The environment of
# the workflow's own Python is neither used nor changed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lock="$root/actions/_shared/requirements.txt"

# The Windows Store puts a `python3` on PATH that only prints an advertisement: each candidate has to run.
works() {
  [ -n "$1" ] && "$1" -I -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' >/dev/null 2>&1
}

hand_over() {
  printf 'python=%s\nprivate=%s\n' "$1" "$2" >>"${GITHUB_OUTPUT:?the runner gave no GITHUB_OUTPUT}"
}

python=""
for candidate in "${MLCICD_INPUT_PYTHON:-}" python3 python python3.13 python3.12 python3.11; do
  if works "$candidate"; then
    python=$candidate
    break
  elif [ -n "${MLCICD_INPUT_PYTHON:-}" ] && [ "$candidate" = "$MLCICD_INPUT_PYTHON" ]; then
    # The name is data: it must not end the message or begin a command of the runner.
    printf '::error title=mlcicd::The interpreter of the input "python" does not run, or is older than 3.11%%3A %s\n' \
      "$(printf '%s' "$candidate" | tr -d '\r\n' | sed 's/%/%25/g; s/:/%3A/g' | cut -c1-200)"
    exit 2
  fi
done
if [ -z "$python" ]; then
  echo "::error title=mlcicd::There is no Python 3.11 or newer on this runner. Add a step with actions/setup-python before this one, or name an interpreter with the input python."
  exit 2
fi

if [ "${MLCICD_INPUT_ISOLATED:-true}" = "false" ]; then
  hand_over "$python" ""
  exit 0
fi

identity=$("$python" -I -c '
import hashlib, pathlib, platform, sys
parts = [platform.python_implementation(), sys.version, platform.machine(), sys.executable, *sys.argv[1:]]
print(hashlib.sha256(b"\0".join([*map(str.encode, parts), pathlib.Path(sys.argv[1]).read_bytes()])).hexdigest()[:16])
' "$lock" "$root")
home="${RUNNER_TEMP:-${TMPDIR:-/tmp}}/mlcicd-$identity"
case "$(uname -s)" in
  MINGW* | MSYS* | CYGWIN*) own="$home/Scripts/python.exe" ;;
  *) own="$home/bin/python" ;;
esac

if [ -f "$home/ready" ] && works "$own"; then
  echo "mlcicd's environment is ready."
  hand_over "$own" 1
  exit 0
fi

# Where packages come from is the runner's business (mirrors, certificates); how they are installed is ours.
for name in $(env | sed -n 's/^\(PYTHON[A-Z_]*\|PIP_[A-Z_]*\|UV_[A-Z_]*\)=.*/\1/p'); do
  case "$name" in
    *INDEX* | PIP_CERT | PIP_CLIENT_CERT | PIP_TRUSTED_HOST | PIP_PROXY | *FIND_LINKS | PIP_DEFAULT_TIMEOUT | UV_CACHE_DIR | UV_HTTP_TIMEOUT | *NATIVE_TLS | *SYSTEM_CERTS | UV_INSECURE_HOST) ;;
    *) unset "$name" ;;
  esac
done

echo "::group::Installing mlcicd's private environment"
rm -rf "$home"
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --no-project --python "$python" "$home"
  uv pip install --quiet --no-config --python "$own" --require-hashes --only-binary :all: --requirement "$lock"
else
  "$python" -I -m venv "$home"
  "$own" -I -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement "$lock"
fi
# The library itself is this checkout: no build, nothing more to download.
"$own" -I -c '
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "mlcicd.pth").write_text(sys.argv[1] + "\n", encoding="utf-8")
' "$root"
"$own" -I -c 'import mlcicd'
touch "$home/ready"
echo "::endgroup::"
hand_over "$own" 1
