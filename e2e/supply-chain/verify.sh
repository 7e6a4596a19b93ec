#!/usr/bin/env bash
# verify.sh DIST IMAGE@DIGEST CHART@DIGEST FLAG...: what an installer does, over all that sign.sh signed. The flags say whose
# signature counts: --certificate-identity and --certificate-oidc-issuer, or --key.
#
# PLAIN_HTTP=1 is for a registry on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 4 ]] || { echo "usage: verify.sh DIST IMAGE@DIGEST CHART@DIGEST FLAG..." >&2; exit 2; }
dist=$1 image=$2 chart=$3
shift 3
cosign=$("$here/tools.sh" go)/cosign
registry=(${PLAIN_HTTP:+--allow-http-registry})

for each in "$image" "$chart"; do
    "$cosign" verify "$@" "${registry[@]}" "$each" > /dev/null
    echo "verified $each"
done
"$cosign" verify-attestation --type cyclonedx "$@" "${registry[@]}" "$image" > /dev/null
echo "verified the SBOM of $image"
for file in "$dist"/ennote-agent-* "$dist/SHA256SUMS"; do
    case $file in *.sigstore.json) continue ;; esac
    "$cosign" verify-blob "$@" --bundle "$file.sigstore.json" "$file"
    echo "verified $file"
done
(cd "$dist" && sha256sum --check --quiet SHA256SUMS)
