#!/usr/bin/env bash
# install.sh - makes sure that Ceph's monitor, storage daemon and S3 gateway are here.
#
# Installs them with apt-get (Debian, Ubuntu), as root or with sudo, and only what is missing. 51 packages, 62 MB to
# download. They start no daemon of their own.
set -euo pipefail

missing() {
  local tool
  for tool in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph; do
    command -v "$tool" >/dev/null || return 0
  done
  return 1
}

missing || exit 0
command -v apt-get >/dev/null || {
  echo 'install.sh: no apt-get; install ceph-mon, ceph-osd, radosgw and the ceph command by hand' >&2
  exit 1
}
as_root=()
if (( $(id -u) != 0 )); then as_root=(sudo); fi
export DEBIAN_FRONTEND=noninteractive
echo 'install.sh: installing ceph-mon, ceph-osd and radosgw' >&2
"${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
"${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
  install --no-install-recommends ceph-mon ceph-osd radosgw >&2
if missing; then
  echo 'install.sh: the packages came without all the commands that are needed' >&2
  exit 1
fi
