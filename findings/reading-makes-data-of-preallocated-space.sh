#!/usr/bin/env bash
# reading-makes-data-of-preallocated-space.sh: on ext4 and XFS a read changes where SEEK_DATA says that a file has data.
#
# Space that fallocate took and nothing was written to is a hole for SEEK_DATA. Reading it puts zeros into the page cache, and from
# then on ext4 and XFS say that there is data, exactly where it was read; when the cache is dropped it is a hole again. So a program
# that asks SEEK_DATA which pages of its preallocated file were ever written gets another answer after somebody has read the file, such
# as a backup. On btrfs and tmpfs a read changes nothing, and in an ordinary hole it changes nothing on any of the four.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, btrfs-progs, util-linux, perl. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, 30 November 2026; KiB of 8192 that SEEK_DATA finds:
#   ext4, xfs:    preallocated 0, 64 read 64, all read 8192, cache dropped 0; hole 0 always
#   btrfs, tmpfs: preallocated 0, 64 read 0, all read 0, cache dropped 0; hole 0 always
set -u
scratch=$(mktemp -d)
mounted=$scratch/mounted
finish() { umount -l "$mounted" 2>/dev/null; rm -rf "$scratch"; }
trap finish EXIT
cannot() { echo "cannot run: $*"; exit 77; }
for tool in mkfs.ext4 mkfs.xfs mkfs.btrfs fallocate losetup perl; do command -v "$tool" >/dev/null || cannot "no $tool"; done
[ "$(id -u)" = 0 ] || cannot 'not root'
mkdir "$mounted"
echo "Linux $(uname -r)"

# How many KiB of a file SEEK_DATA (3) and SEEK_HOLE (4) call data.
data_kib() {
  perl -e '
    open(my $file, "<", $ARGV[0]) or die "open: $!";
    my ($place, $found) = (0, 0);
    while (defined(my $data = sysseek($file, $place, 3))) {
      $place = sysseek($file, $data, 4);
      $found += $place - $data;
    }
    print $found / 1024;' "$1"
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
  fallocate -l 8MiB "$mounted/preallocated"
  truncate -s 8M "$mounted/hole"
  sync -f "$mounted"
  line="$kind:"
  for file in preallocated hole; do
    line="$line $file $(data_kib "$mounted/$file")"
    dd if="$mounted/$file" of=/dev/null bs=64K skip=16 count=1 status=none
    line="$line, 64 read $(data_kib "$mounted/$file")"
    dd if="$mounted/$file" of=/dev/null bs=1M status=none
    line="$line, all read $(data_kib "$mounted/$file")"
    dd if="$mounted/$file" of=/dev/null iflag=nocache count=0 status=none
    line="$line, cache dropped $(data_kib "$mounted/$file");"
  done
  echo "$line"
  result="$result$line|"
  umount "$mounted"
  rm -f "$scratch/image"
done
still='hole 0, 64 read 0, all read 0, cache dropped 0;'
moved='preallocated 0, 64 read 64, all read 8192, cache dropped 0;'
unmoved='preallocated 0, 64 read 0, all read 0, cache dropped 0;'
expected="ext4: $moved $still|xfs: $moved $still|btrfs: $unmoved $still|tmpfs: $unmoved $still|"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
