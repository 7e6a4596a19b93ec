#!/usr/bin/env bash
# assemble.sh DIST: puts beside the binaries that build.sh left in DIST
#
#   image/, image.digest       the image from scratch, one for each binary under one index (an OCI layout), and the index's digest
#   ennote-agent-VERSION.tgz   the chart, which names the image by that digest: who trusts the chart knows the image
#   SHA256SUMS                 of all files
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[[ $# -eq 1 ]] || { echo "usage: assemble.sh DIST" >&2; exit 2; }
dist=$(cd "$1" && pwd)
bin=$("$here/tools.sh" go)
# Where the release workflow pushes it.
repository=${REPOSITORY:-ghcr.io/ennote-io/ennote-agent}

most=15000000 # bytes of the image, for each platform: DESIGN's bar

version=$(sed -n 's/^version: //p' "$root/charts/ennote-agent/Chart.yaml")
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" show -s --format=%ct HEAD)}
commit=$(git -C "$root" rev-parse HEAD)

platforms=()
for binary in "$dist"/ennote-agent-linux-*; do
    case $binary in
        *.cdx.json | *.sigstore.json) ;;
        *) platforms+=("linux/${binary##*-}=$binary") ;;
    esac
done
"$bin/supply-chain" image "$dist/image" "$epoch" "$version" "$commit" "${platforms[@]}" > "$dist/image.digest"
digest=$(< "$dist/image.digest")
size=$(cat "$dist"/image/blobs/sha256/* | wc -c)
if ((size > most * ${#platforms[@]})); then echo "the image has $size bytes, more than $most a platform" >&2; exit 1; fi
echo "image $digest: ${#platforms[@]} platform(s), $size bytes"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$root/charts/ennote-agent" "$work/"
sed -i -e "s#^  repository: .*#  repository: $repository#" -e "s#^  digest: \"\"#  digest: $digest#" "$work/ennote-agent/values.yaml"
rm -f "$dist"/ennote-agent-*.tgz
chart=$dist/ennote-agent-$version.tgz
# Not `helm package`, which writes the time of day into the archive.
tar --create --directory="$work" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=go-w,a+rX \
    --format=ustar ennote-agent | gzip --no-name --best > "$chart"
image=$("$bin/helm" template ennote-agent "$chart" | sed -n 's/^ *image: "\(.*\)"$/\1/p')
if [[ $image != "$repository@$digest" ]]; then echo "the chart installs $image and not $repository@$digest" >&2; exit 1; fi
echo "chart $chart: installs $image"

(cd "$dist" && rm -f SHA256SUMS ./*.sigstore.json && sha256sum ennote-agent-* > SHA256SUMS && cat SHA256SUMS)
