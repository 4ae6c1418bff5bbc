#!/usr/bin/env bash
# failed-fallocate-fills-ext4.sh: on ext4 fallocate that is refused for want of space keeps all the space that there was.
#
# A file is to be given more space than is free: ENOSPC on ext4, XFS, btrfs and tmpfs. The last three leave the file and the free space as
# they were. ext4 goes as far as it gets and stays there: the file has all that was free, nothing is left for anybody, and the
# size of the file has grown to what it got; with FALLOC_FL_KEEP_SIZE (-n) the size says 0, and only the count of blocks tells. So a
# store that reserves space in order to find out whether it has enough fills the disk by asking, unless it cuts the file afterwards.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, btrfs-progs, util-linux. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, 30 November 2026:
#   ext4: ENOSPC, keeps all, size grown; with -n ENOSPC, keeps all, size 0; cut: keeps nothing
#   xfs, btrfs, tmpfs: ENOSPC, keeps nothing, size 0; with -n ENOSPC, keeps nothing, size 0; cut: keeps nothing
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

free_mib() { sync -f "$mounted"; echo $(($(stat -f -c '%a * %S' "$mounted") / 1048576)); }
# What of the space that was free ($1 MiB) the file and the file system show to be taken.
kept() {
  local taken=$(($(stat -c %b "$mounted/file") / 2048)) left
  left=$(free_mib)
  if [ "$taken" -ge "$1" ] && [ "$left" -lt 8 ]; then echo 'keeps all'
  elif [ "$taken" = 0 ] && [ "$left" -gt $(($1 - 8)) ]; then echo 'keeps nothing'
  else echo "keeps $taken MiB, $left of $1 are free"; fi
}
# Asks for 64 MiB more than are free; the rest are options of fallocate.
ask() {
  local free text size
  free=$(free_mib)
  text=$(fallocate "$@" -l "$((free + 64))MiB" "$mounted/file" 2>&1) && text='ok'
  case $text in *'No space left'*) text=ENOSPC ;; esac
  size=$(stat -c %s "$mounted/file")
  [ "$size" = 0 ] && size='size 0' || size='size grown'
  echo "$text, $(kept "$free"), $size"
}
result=''
for kind in ext4 xfs btrfs tmpfs; do
  case $kind in
    tmpfs) mount -t tmpfs -o size=256M tmpfs "$mounted" || cannot 'mount tmpfs' ;;
    *)
      truncate -s 512M "$scratch/image"
      "mkfs.$kind" -q "$scratch/image" >/dev/null 2>&1 || cannot "mkfs.$kind"
      mount -o loop "$scratch/image" "$mounted" || cannot "mount $kind"
      ;;
  esac
  : > "$mounted/file"
  free=$(free_mib)
  line="$kind: $(ask)"
  truncate -s 0 "$mounted/file"
  line="$line; with -n $(ask -n)"
  truncate -s 0 "$mounted/file"
  line="$line; cut: $(kept "$free")"
  echo "$line"
  result="$result$line|"
  umount "$mounted"
  rm -f "$scratch/image"
done
undone='ENOSPC, keeps nothing, size 0; with -n ENOSPC, keeps nothing, size 0; cut: keeps nothing'
expected="ext4: ENOSPC, keeps all, size grown; with -n ENOSPC, keeps all, size 0; cut: keeps nothing|"
expected="${expected}xfs: $undone|btrfs: $undone|tmpfs: $undone|"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
