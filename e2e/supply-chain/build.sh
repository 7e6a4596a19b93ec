#!/usr/bin/env bash
# build.sh OUT FOLDER: copies the tree to FOLDER, builds the release there and puts into OUT, for the platform of this machine:
#
#   ennote-agent-linux-ARCH            one static file, stripped, with the list of its crates inside (cargo auditable)
#   ennote-agent-linux-ARCH.cdx.json   the SBOM, CycloneDX
#
# Neither depends on FOLDER: `make reproducible` builds in two of them and compares. FOLDER/target is kept for the next build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[[ $# -eq 2 ]] || { echo "usage: build.sh OUT FOLDER" >&2; exit 2; }
mkdir -p "$1" "$2"
out=$(cd "$1" && pwd) folder=$(cd "$2" && pwd)

most=12000000 # bytes of the binary: DESIGN's bar

case $(uname -sm) in
    "Linux x86_64") arch=amd64 triple=x86_64-unknown-linux-gnu ;;
    "Linux aarch64") arch=arm64 triple=aarch64-unknown-linux-gnu ;;
    *) echo "a release is built on Linux, amd64 or arm64, and this is $(uname -sm)" >&2; exit 1 ;;
esac
auditable=$("$here/tools.sh" auditable)/cargo-auditable
cyclonedx=$("$here/tools.sh" cyclonedx)/cargo-cyclonedx

# What git would commit, and nothing else that lies about.
find "$folder" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
(cd "$root" && git ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do if [[ -e $file ]]; then printf '%s\0' "$file"; fi; done |
    tar --null --files-from=- --create --file=-) | tar --extract --directory="$folder"

# Both go into the binary (`ennote-agent version`, and the floor of its clock): of the commit, not of this machine and minute.
export ENNOTE_BUILD_COMMIT=${ENNOTE_BUILD_COMMIT:-$(git -C "$root" rev-parse --short=12 HEAD)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" show -s --format=%ct HEAD)}

# No name of a folder of this machine: not the tree's, not cargo's, not the toolchain's.
cd "$folder"
crates=${CARGO_HOME:-$HOME/.cargo}
sysroot=$("${RUSTC:-rustc}" --print sysroot)
# Relocations packed (DT_RELR, glibc 2.36): half a megabyte less, and the program stays position-independent.
flags=(-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs "--remap-path-prefix=$folder=/ennote-agent"
    "--remap-path-prefix=$crates=/cargo" "--remap-path-prefix=$sysroot=/rust")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$folder/target
export CFLAGS="-ffile-prefix-map=$folder=/ennote-agent -ffile-prefix-map=$crates=/cargo"
unset RUSTFLAGS CARGO_BUILD_TARGET
echo "building the release in $folder"
"$auditable" auditable build --release --locked --target "$triple" --package ennote-agent --bin ennote-agent

# It writes beside each Cargo.toml of the workspace, which is why this is a copy. SOURCE_DATE_EPOCH takes time and chance out of it.
"$cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$triple" --override-filename sbom.cdx

binary=$out/ennote-agent-linux-$arch
install -m 0755 "target/$triple/release/ennote-agent" "$binary"
sed "s#path+file://$folder#path+file:///ennote-agent#g" sbom.cdx.json > "$binary.cdx.json"

for file in "$binary" "$binary.cdx.json"; do
    for path in "$folder" "$crates" "$sysroot"; do
        if grep --quiet --fixed-strings "$path" "$file"; then echo "$file holds the path $path" >&2; exit 1; fi
    done
done
if ! readelf --file-header --program-headers --wide "$binary" | awk '/INTERP/ { found = 1 } END { exit found }'; then
    echo "$binary is not static" >&2
    exit 1
fi
# awk reads to the end: a reader that leaves early would end readelf by a signal, and so the pipe with an error.
if ! readelf --sections --wide "$binary" | awk '/\.dep-v0/ { found = 1 } END { exit !found }'; then
    echo "$binary lacks the list of its crates" >&2
    exit 1
fi
size=$(stat -c %s "$binary")
if ((size > most)); then echo "$binary has $size bytes, more than $most" >&2; exit 1; fi
echo "$binary: $size bytes, static; $(grep -c '"purl"' "$binary.cdx.json") packages in its SBOM"
