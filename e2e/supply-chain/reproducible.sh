#!/usr/bin/env bash
# reproducible.sh DIST: builds what is in DIST once more, from nothing, in a folder of another name, and compares every file.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -eq 1 ]] || { echo "usage: reproducible.sh DIST" >&2; exit 2; }
dist=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/build.sh" "$work/dist" "$work/another-name/and/another-depth"
"$here/assemble.sh" "$work/dist" > /dev/null
for each in "$dist"/ennote-agent-* "$dist/SHA256SUMS" "$dist/image.digest"; do
    name=$(basename "$each")
    case $name in *.sigstore.json) continue ;; esac
    if ! cmp "$each" "$work/dist/$name"; then
        echo "two builds of one commit differ in $name" >&2
        exit 1
    fi
    echo "equal: $name $(sha256sum < "$each" | cut -c1-16)"
done
echo "equal: image $(< "$dist/image.digest")"
