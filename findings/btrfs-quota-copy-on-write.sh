#!/usr/bin/env bash
# btrfs-quota-copy-on-write.sh: at a quota, what btrfs allows depends on how the file is written.
#
# Two files in subvolumes that may take 64 MiB, both written until they are refused. The ordinary one (copy on write) can then neither
# be overwritten, nor have holes made, nor be cut, not even to nothing: EDQUOT each time; only removing it helps. The one with chattr +C
# is refused with ENOSPC instead of EDQUOT, and everything works. Beside that: statfs shows 100 MiB that were written past the page cache
# only after a sync.
#
# Needs root, loop devices, and of Debian: btrfs-progs, e2fsprogs (chattr), util-linux. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, btrfs-progs 6.2-1+deb12u2, 28 November 2026:
#   ordinary: full EDQUOT; overwrite EDQUOT, hole EDQUOT, cut EDQUOT, remove ok
#   +C:       full ENOSPC; overwrite ok, hole ok, cut ok, remove ok
#   statfs:   0 MiB of 100 written directly are shown before the sync, 100 after
set -u
scratch=$(mktemp -d)
mounted=$scratch/mounted
finish() { umount -l "$mounted" 2>/dev/null; rm -rf "$scratch"; }
trap finish EXIT
cannot() { echo "cannot run: $*"; exit 77; }
for tool in mkfs.btrfs btrfs chattr fallocate losetup; do command -v "$tool" >/dev/null || cannot "no $tool"; done
[ "$(id -u)" = 0 ] || cannot 'not root'
mkdir "$mounted"
truncate -s 1G "$scratch/image"
mkfs.btrfs -q "$scratch/image" >/dev/null 2>&1 || cannot 'mkfs.btrfs'
mount -o loop "$scratch/image" "$mounted" || cannot 'mount'
echo "Linux $(uname -r), $(btrfs --version)"

# The name of the error with which a program ended, or ok.
outcome() {
  local text
  if text=$("$@" 2>&1); then echo ok; return; fi
  case $text in
    *'quota exceeded'*) echo EDQUOT ;;
    *'No space left'*) echo ENOSPC ;;
    *) echo "$text" | tail -n 1 ;;
  esac
}

free_mib() { echo $(($(stat -f -c '%a * %S' "$mounted") / 1048576)); }
btrfs quota enable "$mounted"
result=''
for kind in ordinary +C; do
  volume=$mounted/$kind
  btrfs subvolume create "$volume" >/dev/null
  touch "$volume/file"
  if [ "$kind" = +C ]; then chattr +C "$volume/file"; fi
  btrfs qgroup limit 64M "$volume"
  sync -f "$mounted"
  full=$(outcome dd if=/dev/zero of="$volume/file" bs=1M count=200 oflag=direct conv=notrunc)
  overwrite=$(outcome dd if=/dev/zero of="$volume/file" bs=1M count=8 seek=8 oflag=direct conv=notrunc)
  hole=$(outcome fallocate --punch-hole --offset 20MiB --length 8MiB "$volume/file")
  cut=$(outcome truncate -s 0 "$volume/file")
  remove=$(outcome rm "$volume/file")
  line="$kind: full $full; overwrite $overwrite, hole $hole, cut $cut, remove $remove"
  echo "$line"
  result="$result$line|"
done
sync -f "$mounted"
before=$(free_mib)
dd if=/dev/zero of="$mounted/direct" bs=1M count=100 oflag=direct status=none
early=$((before - $(free_mib)))
sync -f "$mounted"
late=$((before - $(free_mib)))
echo "statfs: $early MiB of 100 written directly are shown before the sync, $late after"
expected='ordinary: full EDQUOT; overwrite EDQUOT, hole EDQUOT, cut EDQUOT, remove ok|+C: full ENOSPC; overwrite ok, hole ok, cut ok, remove ok|'
if [ "$result" = "$expected" ] && [ "$early" -lt 50 ] && [ "$late" -ge 90 ]; then exit 0; fi
echo 'this has changed'
exit 1
