#!/usr/bin/env bash
# sign.sh DIST IMAGE@DIGEST CHART@DIGEST [FLAG...]: signs the image and the chart by digest, attests each SBOM to the image, and puts
# a bundle FILE.sigstore.json beside every file of DIST. The flags go to cosign: none for keyless, --key and what it needs otherwise.
#
# PLAIN_HTTP=1 is for a registry on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 3 ]] || { echo "usage: sign.sh DIST IMAGE@DIGEST CHART@DIGEST [FLAG...]" >&2; exit 2; }
dist=$1 image=$2 chart=$3
shift 3
cosign=$("$here/tools.sh" go)/cosign
registry=(${PLAIN_HTTP:+--allow-http-registry})

for each in "$image" "$chart"; do
    # A tag may be moved between the push and here.
    [[ $each == *@sha256:* ]] || { echo "$each is not named by its digest" >&2; exit 2; }
    "$cosign" sign --yes "$@" "${registry[@]}" "$each"
    echo "signed $each"
done
for sbom in "$dist"/*.cdx.json; do
    "$cosign" attest --yes --type cyclonedx --predicate "$sbom" "$@" "${registry[@]}" "$image"
    echo "attested $sbom to $image"
done
for file in "$dist"/ennote-agent-* "$dist/SHA256SUMS"; do
    case $file in *.sigstore.json) continue ;; esac
    "$cosign" sign-blob --yes "$@" --bundle "$file.sigstore.json" "$file" > /dev/null
    echo "signed $file"
done
