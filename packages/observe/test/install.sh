#!/usr/bin/env bash
# Installs Chromium and promtool with apt-get (Debian, Ubuntu), as root or with sudo. Tests use them where they are, and say so
# where they are not.
set -u
command -v chromium >/dev/null && command -v promtool >/dev/null && exit 0
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 &&
  "${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends chromium prometheus >&2 ||
  echo 'install.sh: Chromium and promtool could not be installed; tests that use them are skipped' >&2
