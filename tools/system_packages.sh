#!/usr/bin/env bash
# Installs the Debian packages that the tests run for real (tools/apt-packages.txt), where they are missing and that is allowed.
set -euo pipefail
missing=()
while read -r package; do
  case "$package" in '' | '#'*) continue ;; esac
  dpkg-query --show --showformat '${Status}\n' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done <"$(dirname "${BASH_SOURCE[0]}")/apt-packages.txt"
[ ${#missing[@]} -gt 0 ] || exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo --non-interactive"
if ! command -v apt-get >/dev/null 2>&1 || ! $sudo true 2>/dev/null; then
  echo "The tests need: ${missing[*]}. Install them (Debian's names), then run this again." >&2
  exit 2
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
