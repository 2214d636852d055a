#!/bin/sh
# Installs the given Debian packages where they are missing. Needs root for that, and says so.
set -eu
missing=
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
command -v kubectl >/dev/null 2>&1 || missing="$missing kubernetes-client"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are needed:$missing" >&2
    echo "hint: sudo apt-get install$missing" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086  # a list of package names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
# The packages start their daemons system-wide; the tests run their own, in namespaces.
for service in bird frr gobgpd openbgpd exabgp; do
    command -v systemctl >/dev/null 2>&1 && systemctl stop "$service" 2>/dev/null || true
done
