#!/usr/bin/env bash
# login.sh REGISTRY USER < PASSWORD: logs crane and cosign in, and helm, which keeps credentials of its own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -eq 2 ]] || { echo "usage: login.sh REGISTRY USER < PASSWORD" >&2; exit 2; }
bin=$("$here/tools.sh" go)
read -r password
"$bin/crane" auth login "$1" --username "$2" --password-stdin <<< "$password" >&2
"$bin/helm" registry login "$1" --username "$2" --password-stdin <<< "$password" >&2
