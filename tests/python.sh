#!/bin/sh
# Installs Python packages into a folder of their own: python.sh FOLDER PACKAGE==VERSION…
# For modules of which distributions have versions that the tests do not know.
set -eu
folder=$1
shift
# What is there already is known by the names of its packages.
installed="$folder/.installed"
[ "$(cat "$installed" 2>/dev/null)" = "$*" ] && exit 0
if ! python3 -m pip install --quiet --upgrade --root-user-action=ignore --target "$folder" "$@"; then
    echo "cannot install $*: tests that need it print SKIP" >&2
    exit 0
fi
echo "$*" >"$installed"
