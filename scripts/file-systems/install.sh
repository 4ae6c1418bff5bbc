#!/usr/bin/env bash
# install.sh - makes sure that the programs are here with which tests make file systems and block devices in files.
#
# Installs them with apt-get (Debian, Ubuntu), as root or with sudo, and only what is missing. Where they cannot be had the
# tests that need them say so and are left out.
set -euo pipefail

missing() {
  local tool
  for tool in mkfs.ext4 mkfs.xfs mkfs.btrfs btrfs losetup fincore unshare; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || return 0
  done
  return 1
}

missing || exit 0
command -v apt-get >/dev/null || {
  echo 'install.sh: no apt-get; install e2fsprogs, xfsprogs, btrfs-progs and util-linux by hand' >&2
  exit 1
}
as_root=()
if (( $(id -u) != 0 )); then as_root=(sudo); fi
export DEBIAN_FRONTEND=noninteractive
echo 'install.sh: installing e2fsprogs, xfsprogs and btrfs-progs' >&2
"${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
"${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
  install --no-install-recommends e2fsprogs xfsprogs btrfs-progs util-linux util-linux-extra >&2 ||
  "${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends e2fsprogs xfsprogs btrfs-progs util-linux >&2
if missing; then
  echo 'install.sh: the packages came without all the commands that are needed' >&2
  exit 1
fi
