#!/usr/bin/env bash
# one-byte-dirties-a-whole-folio.sh: on ext4 and XFS one byte that is written makes all of a large folio dirty, and 4 KiB are written.
#
# Readahead puts a file into the page cache in folios of 128 KiB or more. A byte written into one makes the count of dirty pages
# grow by the whole folio, in cachestat and in "Dirty" of /proc/meminfo: 32 bytes are nearly 4 MiB of dirty memory with the usual readahead of
# 128 KiB, and 38 MiB where the device is read 2,560 KiB ahead. The file systems know better: fdatasync writes the 32 blocks.
# So who reads those counts, as one does to see how far a store is behind its disk or how much is lost with the power,
# sees 31 to 300 times too much. On btrfs it is a page for a byte.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, btrfs-progs, util-linux, perl; Linux 6.5 (cachestat). Nothing of
# Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, x86-64, 30 November 2026; after 32 bytes in 64 MiB, readahead 128 and 2560 KiB:
#   ext4, xfs: 993 and 9793 pages are dirty (with 2560 Dirty grew by 9793 to 9800 pages), fdatasync writes 128 KiB
#   btrfs:     32 and 32 pages are dirty, fdatasync writes 196 KiB
set -u
scratch=$(mktemp -d)
mounted=$scratch/mounted
device=''
readahead=''
release() {
  umount -l "$mounted" 2>/dev/null
  [ -n "$device" ] || return
  echo "$readahead" > "/sys/block/${device#/dev/}/queue/read_ahead_kb"
  losetup -d "$device" 2>/dev/null
  device=''
}
finish() { release; rm -rf "$scratch"; }
trap finish EXIT
cannot() { echo "cannot run: $*"; exit 77; }
for tool in mkfs.ext4 mkfs.xfs mkfs.btrfs losetup perl; do command -v "$tool" >/dev/null || cannot "no $tool"; done
[ "$(id -u)" = 0 ] || cannot 'not root'
[ "$(uname -m)" = x86_64 ] || cannot 'knows the numbers of system calls of x86-64 only'
mkdir "$mounted"
echo "Linux $(uname -r)"
cat > "$scratch/try.pl" <<'PROGRAM'
use strict;
my ($fadvise64, $cachestat, $fdatasync, $dontneed) = (221, 451, 75, 4);
my ($path, $statistics) = @ARGV;
open(my $file, '+<', $path) or die "open: $!";
sub kib_written {
  open(my $lines, '<', $statistics) or die "statistics: $!";
  return (split(' ', <$lines>))[6] / 2;
}
syscall($fadvise64, fileno($file), 0, 0, $dontneed) == 0 or die "fadvise: $!";
1 while sysread($file, my $bytes, 131072);
for (my $offset = 0; $offset < -s $file; $offset += 2097152) {
  sysseek($file, $offset, 0);
  syswrite($file, 'x', 1) == 1 or die "write: $!";
}
my ($range, $counts) = (pack('Q2', 0, 0), pack('Q5', 0, 0, 0, 0, 0));
syscall($cachestat, fileno($file), $range, $counts, 0) == 0 or exit 77;
my $dirty = (unpack('Q5', $counts))[1];
my $before = kib_written();
syscall($fdatasync, fileno($file)) == 0 or die "fdatasync: $!";
my $written = kib_written() - $before;
print STDERR "$dirty pages are dirty, $written KiB written\n";
# How many there are depends a little on where the folios begin, and what metadata is written on the file system.
my $pages = $dirty == 32 ? '1 page' : $dirty > 32 * 200 ? 'more than 200 pages' : $dirty > 32 * 20 ? 'more than 20 pages' : $dirty;
print "$pages dirty for each byte, ", $written < 512 ? 'less than 16' : $written / 32, " KiB written for each";
PROGRAM

result=''
for kind in ext4 xfs btrfs; do
  for ahead in 128 2560; do
    truncate -s 512M "$scratch/image"
    "mkfs.$kind" -q "$scratch/image" >/dev/null 2>&1 || cannot "mkfs.$kind"
    device=$(losetup -f --show "$scratch/image") || cannot losetup
    readahead=$(cat "/sys/block/${device#/dev/}/queue/read_ahead_kb")
    echo "$ahead" > "/sys/block/${device#/dev/}/queue/read_ahead_kb"
    mount "$device" "$mounted" || cannot "mount $kind"
    dd if=/dev/urandom of="$mounted/file" bs=1M count=64 status=none
    sync -f "$mounted"
    line=$(perl "$scratch/try.pl" "$mounted/file" "/sys/block/${device#/dev/}/stat") || { [ $? = 77 ] && cannot 'no cachestat'; exit 1; }
    line="$kind $ahead: $line"
    echo "$line"
    result="$result$line|"
    release
    rm -f "$scratch/image"
  done
done
block='less than 16 KiB written for each'
expected=''
for kind in ext4 xfs; do
  expected="$expected$kind 128: more than 20 pages dirty for each byte, $block|$kind 2560: more than 200 pages dirty for each byte, $block|"
done
for ahead in 128 2560; do expected="${expected}btrfs $ahead: 1 page dirty for each byte, $block|"; done
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
