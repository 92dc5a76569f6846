#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing; where none is, it touches nothing and needs no rights.
set -euo pipefail

missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get > /dev/null; then
  echo "weft: expected apt-get, to install ${missing[*]}. On another system than Debian install what these hold, then build with cmake." >&2
  exit 1
fi
root=()
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo > /dev/null; then
    echo "weft: missing packages: ${missing[*]}. Install them as root, or install sudo." >&2
    exit 1
  fi
  root=(sudo)
fi
echo "weft: installing ${missing[*]}"
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
