#!/usr/bin/env bash
# tools.sh [go|zizmor|auditable|cyclonedx]: installs what is missing of the tools of the supply chain, each at the version written
# here or in go.mod, and prints the folder that holds it. They are kept outside the tree, under their versions.
#
#   go         cosign, crane, helm, actionlint and our own `supply-chain`, from the Go modules of go.sum
#   zizmor     a wheel from PyPI, held by its hash, in a venv
#   auditable, cyclonedx   crates, with the lock files that they were released with
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ennote-agent

AUDITABLE=0.7.7
CYCLONEDX=0.5.9

# Two runs at once build once; a build that was broken off leaves no folder that looks whole.
once() { # DIR WHAT COMMAND...: COMMAND fills the folder named as its last argument
    local dir=$1 what=$2
    shift 2
    mkdir -p "$(dirname "$dir")"
    exec 9> "$dir.lock"
    flock 9
    if [[ ! -d $dir ]]; then
        echo "installing $what" >&2
        rm -rf "$dir.draft"
        "$@" "$dir.draft" >&2
        mv "$dir.draft" "$dir"
    fi
    exec 9>&-
}

go_tools() {
    mkdir -p "$1/bin"
    GOBIN=$1/bin CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly \
        go -C "$here" install -trimpath -ldflags "-s -w" tool
}

zizmor() {
    if ! { python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check \
        --require-hashes --only-binary :all: --no-deps --requirement "$here/zizmor.txt"; }; then
        echo "zizmor cannot be installed: it needs Python 3 with venv (apt install python3-venv) and PyPI within reach" >&2
        return 1
    fi
}

crate() { # NAME VERSION DIR
    "${CARGO:-cargo}" install --quiet --locked --root "$3" "$1@$2"
}

case ${1:-go} in
    go)
        key=$({ cat "$here"/go.mod "$here"/go.sum "$here"/*.go; cd "$here"; go version; } | sha256sum | cut -c1-24)
        dir=$cache/supply-chain/$key
        once "$dir" "cosign, crane, helm and actionlint (once, about 4 minutes)" go_tools
        ;;
    zizmor)
        dir=$cache/zizmor-$(sha256sum "$here/zizmor.txt" | cut -c1-24)
        once "$dir" "zizmor (once, seconds)" zizmor
        ;;
    auditable)
        dir=$cache/cargo-auditable-$AUDITABLE
        once "$dir" "cargo-auditable $AUDITABLE (once, half a minute)" crate cargo-auditable "$AUDITABLE"
        ;;
    cyclonedx)
        dir=$cache/cargo-cyclonedx-$CYCLONEDX
        once "$dir" "cargo-cyclonedx $CYCLONEDX (once, about 2 minutes)" crate cargo-cyclonedx "$CYCLONEDX"
        ;;
    *)
        echo "tools.sh: no such tool: $1" >&2
        exit 2
        ;;
esac
echo "$dir/bin"
