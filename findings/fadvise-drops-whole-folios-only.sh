#!/usr/bin/env bash
# fadvise-drops-whole-folios-only.sh: on ext4 and XFS the page cache of a file that was read goes as a whole, hardly in pieces of 64 KiB.
#
# posix_fadvise(POSIX_FADV_DONTNEED) drops clean cached pages of a range, and leaves pages that the range covers in part: the manual asks
# for a range aligned to pages. What counts is the folio, though, and readahead of ext4 and XFS makes folios of up to 128 KiB at its
# default, and of megabytes where it may read further. So of a file of 64 MiB that was read from front to end, each second 64 KiB is
# dropped: 8,192 of 16,384 pages should stay, and 16,336 do. Then the other half is dropped, too: every byte has been named
# in an aligned call that succeeded, and 63.6 MiB are still cached. One call for the whole file drops them all. btrfs drops what it is told.
# A program that gives its page cache back page by page, as it evicts, gives back nothing.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, btrfs-progs, util-linux, perl; Linux 6.5 (cachestat). Nothing of
# Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, x86-64, 30 November 2026, readahead 128 KiB; of 16384 cached pages are left:
#   ext4, xfs: each second 64 KiB dropped 16336, the others too 16288, in one call 0
#   btrfs:     each second 64 KiB dropped 8192, the others too 0, in one call 0
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
my ($fadvise64, $cachestat, $dontneed, $piece) = (221, 451, 4, 65536);
open(my $file, '<', $ARGV[0]) or die "open: $!";
sub cached {
  my ($range, $counts) = (pack('Q2', 0, 0), pack('Q5', 0, 0, 0, 0, 0));
  syscall($cachestat, fileno($file), $range, $counts, 0) == 0 or exit 77;
  return (unpack('Q5', $counts))[0];
}
sub drop {
  my ($offset, $length) = @_;
  syscall($fadvise64, fileno($file), $offset, $length, $dontneed) == 0 or die "fadvise: $!";
}
drop(0, 0);
my $before = cached();
1 while sysread($file, my $bytes, 131072);
my $all = cached();
my @left;
for my $first (0, $piece) {
  for (my $offset = $first; $offset < -s $file; $offset += 2 * $piece) { drop($offset, $piece) }
  push @left, cached();
}
drop(0, 0);
push @left, cached();
# How much stays depends a little on where the folios begin.
my @words = map { $_ > 0.95 * $all ? 'nearly all' : $_ == $all / 2 ? 'half' : $_ == 0 ? 'nothing' : $_ } @left;
print STDERR "$before, then $all cached; left @left\n";
print "each second 64 KiB dropped leaves $words[0], the others too $words[1], in one call $words[2]";
PROGRAM

result=''
for kind in ext4 xfs btrfs; do
  truncate -s 512M "$scratch/image"
  "mkfs.$kind" -q "$scratch/image" >/dev/null 2>&1 || cannot "mkfs.$kind"
  device=$(losetup -f --show "$scratch/image") || cannot losetup
  readahead=$(cat "/sys/block/${device#/dev/}/queue/read_ahead_kb")
  echo 128 > "/sys/block/${device#/dev/}/queue/read_ahead_kb"
  mount "$device" "$mounted" || cannot "mount $kind"
  dd if=/dev/urandom of="$mounted/file" bs=1M count=64 status=none
  sync -f "$mounted"
  line="$kind: $(perl "$scratch/try.pl" "$mounted/file")" || { [ $? = 77 ] && cannot 'no cachestat'; exit 1; }
  echo "$line"
  result="$result$line|"
  release
  rm -f "$scratch/image"
done
whole='each second 64 KiB dropped leaves nearly all, the others too nearly all, in one call nothing'
pieces='each second 64 KiB dropped leaves half, the others too nothing, in one call nothing'
[ "$result" = "ext4: $whole|xfs: $whole|btrfs: $pieces|" ] && exit 0
echo 'this has changed'
exit 1
