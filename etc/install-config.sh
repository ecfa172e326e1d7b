#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the configuration where there is none: an administrator's changes stay.
# Usage: install-config.sh SOURCE DESTINATION (absolute, below $DESTDIR)
set -eu
target="${DESTDIR:-}$2"
[ ! -e "$target" ] || exit 0
mkdir -p -- "$(dirname -- "$target")"
cp -- "$1" "$target"
chmod 0644 -- "$target"
