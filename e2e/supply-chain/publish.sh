#!/usr/bin/env bash
# publish.sh DIST IMAGE CHARTS: pushes the image to IMAGE:VERSION and the chart to CHARTS/ennote-agent:VERSION, and prints what a
# signature is made over, by digest: "image=REF@DIGEST" and "chart=REF@DIGEST".
#
# PLAIN_HTTP=1 is for a registry on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -eq 3 ]] || { echo "usage: publish.sh DIST IMAGE CHARTS" >&2; exit 2; }
dist=$1 image=$2 charts=$3
bin=$("$here/tools.sh" go)
chart=$(echo "$dist"/ennote-agent-*.tgz)
version=${chart##*/ennote-agent-} version=${version%.tgz}

"$bin/crane" push ${PLAIN_HTTP:+--insecure} "$dist/image" "$image:$version" >&2
pushed=$("$bin/crane" digest ${PLAIN_HTTP:+--insecure} "$image:$version")
if [[ $pushed != "$(< "$dist/image.digest")" ]]; then echo "$image:$version has digest $pushed" >&2; exit 1; fi
"$bin/helm" push ${PLAIN_HTTP:+--plain-http} "$chart" "oci://$charts" >&2
echo "image=$image@$pushed"
echo "chart=$charts/ennote-agent@$("$bin/crane" digest ${PLAIN_HTTP:+--insecure} "$charts/ennote-agent:$version")"
