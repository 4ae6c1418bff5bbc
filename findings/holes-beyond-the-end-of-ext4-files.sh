#!/usr/bin/env bash
# holes-beyond-the-end-of-ext4-files.sh: ext4 punches no hole beyond the end of a file, and says that it did.
#
# fallocate with FALLOC_FL_KEEP_SIZE takes space beyond the end of a file, for what will be appended. FALLOC_FL_PUNCH_HOLE gives
# space back. Of the space beyond the end XFS, btrfs and tmpfs give back what the hole covers. ext4 returns 0 and keeps it; of a range across
# the end it gives back the part before the end. Cutting the file to the size that it already has gives all of it back, on all four. So
# a store that gives reserved space back piece by piece has given back nothing, and hears of success each time.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, btrfs-progs, util-linux. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, 30 November 2026; MiB of a file of 2 MiB:
#   ext4:              reserved 16, 8 beyond the end punched 16, across the end punched 15, cut to its size 1
#   xfs, btrfs, tmpfs: reserved 16, 8 beyond the end punched 8, across the end punched 1, cut to its size 1
set -u
scratch=$(mktemp -d)
mounted=$scratch/mounted
finish() { umount -l "$mounted" 2>/dev/null; rm -rf "$scratch"; }
trap finish EXIT
cannot() { echo "cannot run: $*"; exit 77; }
for tool in mkfs.ext4 mkfs.xfs mkfs.btrfs fallocate losetup; do command -v "$tool" >/dev/null || cannot "no $tool"; done
[ "$(id -u)" = 0 ] || cannot 'not root'
mkdir "$mounted"
echo "Linux $(uname -r)"
file=$mounted/file
mebibytes() {
  sync -f "$file"
  echo $(($(stat -c %b "$file") / 2048))
}

result=''
for kind in ext4 xfs btrfs tmpfs; do
  case $kind in
    tmpfs) mount -t tmpfs -o size=64M,huge=never tmpfs "$mounted" || cannot 'mount tmpfs' ;;
    *)
      truncate -s 512M "$scratch/image"
      "mkfs.$kind" -q "$scratch/image" >/dev/null 2>&1 || cannot "mkfs.$kind"
      mount -o loop "$scratch/image" "$mounted" || cannot "mount $kind"
      ;;
  esac
  dd if=/dev/urandom of="$file" bs=1MiB count=2 status=none
  fallocate --keep-size --length 16MiB "$file" || exit 1
  line="$kind: reserved $(mebibytes)"
  fallocate --punch-hole --offset 8MiB --length 8MiB "$file" || exit 1
  line="$line, 8 beyond the end punched $(mebibytes)"
  fallocate --punch-hole --offset 1MiB --length 15MiB "$file" || exit 1
  line="$line, across the end punched $(mebibytes)"
  truncate -s 2MiB "$file"
  line="$line, cut to its size $(mebibytes)"
  echo "$line"
  result="$result$line|"
  umount "$mounted"
  rm -f "$scratch/image"
done
rest='reserved 16, 8 beyond the end punched 8, across the end punched 1, cut to its size 1'
expected="ext4: reserved 16, 8 beyond the end punched 16, across the end punched 15, cut to its size 1|"
for kind in xfs btrfs tmpfs; do expected="$expected$kind: $rest|"; done
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
