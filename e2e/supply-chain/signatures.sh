#!/usr/bin/env bash
# signatures.sh DIST: pushes, signs and verifies a release on this machine, by the scripts of the release workflow, with the real
# cosign, a key made here and a registry on loopback. Then alters it in every way listed below: a single one that is accepted fails.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -eq 1 ]] || { echo "usage: signatures.sh DIST" >&2; exit 2; }
bin=$("$here/tools.sh" go)
work=$(mktemp -d)
registry=
trap 'if [[ -n $registry ]]; then kill "$registry" 2> /dev/null || true; fi; rm -rf "$work"' EXIT
# Nothing of this machine's own settings and logins, and nothing left in them.
export DOCKER_CONFIG=$work/docker TUF_ROOT=$work/tuf COSIGN_PASSWORD=
export HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm
export PLAIN_HTTP=1
mkdir -p "$DOCKER_CONFIG"
cp -R "$1" "$work/dist"
dist=$work/dist
sbom=$(ls "$dist"/*.cdx.json | head -1)
binary=${sbom%.cdx.json}
chart=$(ls "$dist"/ennote-agent-*.tgz)

# The line in which it tells its port is awaited on a pipe.
coproc REGISTRY { exec "$bin/crane" registry serve --address 127.0.0.1:0 2>&1; }
registry=$REGISTRY_PID
read -r line <&"${REGISTRY[0]}"
host=127.0.0.1:${line##* }
echo "registry at $host"

for who in ours theirs; do "$bin/cosign" generate-key-pair --output-key-prefix "$work/$who" 2> /dev/null; done
offline=(--tlog-upload=false --use-signing-config=false)
ours=(--key "$work/ours.pub" --insecure-ignore-tlog=true)
theirs=(--key "$work/theirs.pub" --insecure-ignore-tlog=true)

"$here/publish.sh" "$dist" "$host/ennote-agent" "$host/charts" > "$work/published" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
image=$(sed -n 's/^image=//p' "$work/published") pushed=$(sed -n 's/^chart=//p' "$work/published")
"$here/sign.sh" "$dist" "$image" "$pushed" --key "$work/ours.key" "${offline[@]}" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
"$here/verify.sh" "$dist" "$image" "$pushed" "${ours[@]}" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }

# What is not the release. Each is refused, and for the reason that is expected: a wrong flag would refuse everything, too.
count=0
refused() { # WHAT REASON COMMAND...
    local what=$1 reason=$2
    shift 2
    if "$@" > "$work/said" 2>&1; then echo "ACCEPTED: $what" >&2; exit 1; fi
    if ! grep --quiet --extended-regexp "$reason" "$work/said"; then
        echo "$what is refused, but not for \"$reason\":" >&2
        cat "$work/said" >&2
        exit 1
    fi
    count=$((count + 1))
    echo "refused: $what"
}
blob() { "$bin/cosign" verify-blob "${ours[@]}" --bundle "$1.sigstore.json" "$2"; }
oci() { "$bin/cosign" verify "${ours[@]}" --allow-http-registry "$1"; }
content="could not verify message: invalid signature"
unsigned="no signatures found"
by_key="could not verify envelope: accepted signatures do not match threshold"
digest="provided artifact digest does not match any digest in statement"

(cat "$binary"; printf x) > "$work/longer"
refused "the binary with a byte added" "$content" blob "$binary" "$work/longer"
cp "$binary" "$work/flipped"
printf '\xff' | dd of="$work/flipped" bs=1 seek=4096 conv=notrunc status=none
cmp --quiet "$binary" "$work/flipped" && printf '\x00' | dd of="$work/flipped" bs=1 seek=4096 conv=notrunc status=none
refused "the binary with a byte altered" "$content" blob "$binary" "$work/flipped"
head -c -1 "$binary" > "$work/shorter"
refused "the binary without its last byte" "$content" blob "$binary" "$work/shorter"
sed 's/"name": "ring"/"name": "ping"/' "$sbom" > "$work/sbom.json"
cmp --quiet "$sbom" "$work/sbom.json" && { echo "the SBOM was not altered" >&2; exit 1; }
refused "the SBOM with a crate renamed" "$content" blob "$sbom" "$work/sbom.json"
sed '1s/^......../00000000/' "$dist/SHA256SUMS" > "$work/sums"
refused "other checksums" "$content" blob "$dist/SHA256SUMS" "$work/sums"

# A chart that installs another image, whole in all else.
mkdir "$work/chart"
tar -xzf "$chart" -C "$work/chart"
sed -i 's/^  digest: sha256:......../  digest: sha256:00000000/' "$work/chart/ennote-agent/values.yaml"
evil_chart=$work/$(basename "$chart")
tar -czf "$evil_chart" -C "$work/chart" ennote-agent
refused "a chart that installs another image" "$content" blob "$chart" "$evil_chart"

refused "the bundle of another file" "$content" blob "$sbom" "$binary"
"$bin/cosign" sign-blob --yes --key "$work/theirs.key" "${offline[@]}" --bundle "$work/foreign.sigstore.json" "$binary" > /dev/null 2>&1
refused "the binary signed by another key" "$content" blob "$work/foreign" "$binary"
refused "the right bundle under another key" "$content" \
    "$bin/cosign" verify-blob "${theirs[@]}" --bundle "$binary.sigstore.json" "$binary"
sed 's/"signature":"..../"signature":"AAAA/' "$binary.sigstore.json" > "$work/altered.sigstore.json"
cmp --quiet "$binary.sigstore.json" "$work/altered.sigstore.json" && { echo "the bundle was not altered" >&2; exit 1; }
refused "a bundle with another signature" "could not verify message" blob "$work/altered" "$binary"

# Another binary in an image that is like ours in all else, and its chart, both under the tags of the release.
mkdir "$work/evil"
cp -R "$dist/." "$work/evil/"
rm "$work/evil"/*.sigstore.json
cp "$work/longer" "$work/evil/$(basename "$binary")"
"$bin/supply-chain" image "$work/evil/image" 0 0.0.0 none "linux/${binary##*-}=$work/longer" > "$work/evil/image.digest"
cp "$evil_chart" "$work/evil/"
"$here/publish.sh" "$work/evil" "$host/ennote-agent" "$host/charts" > "$work/published" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
evil=$(sed -n 's/^image=//p' "$work/published") evil_pushed=$(sed -n 's/^chart=//p' "$work/published")
tag=$("$bin/crane" ls --insecure "$host/ennote-agent" | grep -v '^sha256-')
refused "an image of another digest" "$unsigned" oci "$evil"
refused "the tag of the release, moved to it" "$unsigned" oci "$host/ennote-agent:$tag"
refused "a chart of another digest" "$unsigned" oci "$evil_pushed"
refused "our image under another key" "$by_key" "$bin/cosign" verify "${theirs[@]}" --allow-http-registry "$image"
"$bin/supply-chain" graft "$host/ennote-agent" "${image#*@}" "${evil#*@}" > "$work/said"
grep --quiet " of ${evil#*@}" "$work/said" || { echo "nothing was grafted" >&2; exit 1; }
refused "our signature, hung on another image" "$digest" oci "$evil"
"$bin/cosign" sign --yes --key "$work/theirs.key" "${offline[@]}" --allow-http-registry "$evil" > /dev/null 2>&1
refused "an image signed by another key" "$by_key" oci "$evil"
refused "an SBOM attested to another image" "$digest" \
    "$bin/cosign" verify-attestation --type cyclonedx "${ours[@]}" --allow-http-registry "$evil"
refused "our SBOM under another key" "$by_key" \
    "$bin/cosign" verify-attestation --type cyclonedx "${theirs[@]}" --allow-http-registry "$image"

# What the release itself says is still accepted: the refusals above are not a registry that has gone.
"$here/verify.sh" "$dist" "$image" "$pushed" "${ours[@]}" > /dev/null 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
echo "signatures: the release is accepted, $count altered ones are refused"
