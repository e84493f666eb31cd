#!/usr/bin/env bash
# Every workflow and action: valid by GitHub's schemas, then audited. zizmor skips a file that fails its schema, so the
# schemas come first. No finding is ignored anywhere.
set -euo pipefail
bin=${1:?usage: tools/check_workflows.sh BIN}
workflows=(workflows-templates/*.yml)
actions=(action.yml actions/*/action.yml)
"$bin/check-jsonschema" --quiet --builtin-schema vendor.github-workflows "${workflows[@]}"
"$bin/check-jsonschema" --quiet --builtin-schema vendor.github-actions "${actions[@]}"
"$bin/zizmor" --quiet --offline --strict-collection --persona auditor "${workflows[@]}" "${actions[@]}"
for script in actions/_shared/*.sh tools/*.sh; do bash -n "$script"; done
