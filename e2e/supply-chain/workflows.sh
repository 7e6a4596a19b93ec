#!/usr/bin/env bash
# workflows.sh: actionlint and zizmor over .github/workflows, both without the network. Any finding is an error.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
actionlint=$("$here/tools.sh" go)/actionlint
zizmor=$("$here/tools.sh" zizmor)/zizmor

# What the machine has of other linters would change what is found.
workflows=(.github/workflows/*.yml)
"$actionlint" -shellcheck= -pyflakes= "${workflows[@]}"
echo "actionlint: ${#workflows[@]} workflows, nothing found"
"$zizmor" --offline --quiet --persona pedantic --min-severity low .github/workflows
echo "zizmor: nothing found"

# A linter that is not asked, or not heard, finds nothing either.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/.github/workflows"
bad=$work/.github/workflows/bad.yml
cat > "$bad" << 'YAML'
on: pull_request_target
jobs:
  bad:
    runs-on: ubuntu-24.04
    needs: nobody
    steps:
      - uses: actions/checkout@main
      - run: echo ${{ github.event.pull_request.title }}
YAML
if "$actionlint" -shellcheck= -pyflakes= "$bad" > "$work/found"; then echo "actionlint finds nothing in a bad workflow" >&2; exit 1; fi
grep --quiet 'needs job "nobody"' "$work/found"
if "$zizmor" --offline --quiet "$work/.github/workflows" > "$work/found"; then echo "zizmor finds nothing in a bad workflow" >&2; exit 1; fi
for audit in dangerous-triggers excessive-permissions template-injection unpinned-uses; do
    grep --quiet "$audit" "$work/found" || { echo "zizmor does not find $audit in a bad workflow" >&2; exit 1; }
done
echo "both find what is wrong with a bad one"
