#!/usr/bin/env bash
# uncached-reads-read-twice.sh: reading a file in order with RWF_DONTCACHE takes up to twice its bytes from the device.
#
# RWF_DONTCACHE of preadv2 (Linux 6.14) is an ordinary read whose pages leave the page cache as soon as they were copied; it is made for
# what is read once. Readahead goes on, but some of what it brings in is dropped with what was read, before its turn, and is read again.
# So 64 MiB read from front to end in pieces of 4 KiB are 120 MiB from the device,
# and in pieces of 64 KiB 75 MiB; where the device is read 2,560 KiB ahead, 104 and 90. The same reads through the cache, and those with
# RWF_DONTCACHE after POSIX_FADV_RANDOM, which ends readahead, take 64 MiB. btrfs refuses the flag.
#
# Needs root, loop devices, and of Debian: e2fsprogs, xfsprogs, util-linux, perl; Linux 6.14. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen on Linux 6.18, x86-64, 30 November 2026; KiB that the device reads for 65536 KiB, readahead 128 KiB, ext4 and XFS alike:
#   cached 65536; uncached in 4 KiB 122780, in 64 KiB 76416, in 1 MiB 65536; uncached in 4 KiB after POSIX_FADV_RANDOM 65536
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
for tool in mkfs.ext4 mkfs.xfs losetup perl; do command -v "$tool" >/dev/null || cannot "no $tool"; done
[ "$(id -u)" = 0 ] || cannot 'not root'
[ "$(uname -m)" = x86_64 ] || cannot 'knows the numbers of system calls of x86-64 only'
mkdir "$mounted"
echo "Linux $(uname -r)"
cat > "$scratch/try.pl" <<'PROGRAM'
use strict;
my ($fadvise64, $preadv2, $dontneed, $random, $uncached) = (221, 327, 4, 1, 128);
my ($path, $statistics) = @ARGV;
sub kib_read {
  open(my $lines, '<', $statistics) or die "statistics: $!";
  return (split(' ', <$lines>))[2] / 2;
}
# How many KiB the device reads while the whole file is read in pieces.
sub look {
  my ($piece, $flag, $advice) = @_;
  open(my $file, '<', $path) or die "open: $!";
  syscall($fadvise64, fileno($file), 0, 0, $dontneed) == 0 or die "fadvise: $!";
  syscall($fadvise64, fileno($file), 0, 0, $advice) == 0 or die "fadvise: $!";
  my $before = kib_read();
  my $bytes = "\0" x $piece;
  my $vector = pack('PQ', $bytes, $piece);
  for (my $offset = 0; $offset < -s $file; $offset += $piece) {
    my $got = syscall($preadv2, fileno($file), $vector, 1, $offset, 0, $flag);
    exit 77 if $got < 0 && $flag != 0 && $offset == 0;
    die "read $got of $piece: $!" unless $got == $piece;
  }
  return kib_read() - $before;
}
my ($cached, $fine, $coarse) = (look(4096, 0, 0), look(4096, $uncached, 0), look(65536, $uncached, 0));
my $alone = look(4096, $uncached, $random);
print STDERR "cached $cached, uncached in 4 KiB $fine, in 64 KiB $coarse, in 1 MiB ", look(1048576, $uncached, 0), ", without readahead $alone\n";
# How much is read twice depends a little on where the folios begin.
sub word { $_[0] < 1.02 * 65536 ? 'once' : $_[0] > 1.6 * 65536 ? 'nearly twice' : $_[0] > 1.1 * 65536 ? 'more than once' : $_[0] }
print 'cached ', word($cached), ', uncached in 4 KiB ', word($fine), ', in 64 KiB ', word($coarse), ', without readahead ', word($alone);
PROGRAM

result=''
for kind in ext4 xfs; do
  truncate -s 512M "$scratch/image"
  "mkfs.$kind" -q "$scratch/image" >/dev/null 2>&1 || cannot "mkfs.$kind"
  device=$(losetup -f --show "$scratch/image") || cannot losetup
  readahead=$(cat "/sys/block/${device#/dev/}/queue/read_ahead_kb")
  echo 128 > "/sys/block/${device#/dev/}/queue/read_ahead_kb"
  mount "$device" "$mounted" || cannot "mount $kind"
  dd if=/dev/urandom of="$mounted/file" bs=1M count=64 status=none
  sync -f "$mounted"
  line=$(perl "$scratch/try.pl" "$mounted/file" "/sys/block/${device#/dev/}/stat") || { [ $? = 77 ] && cannot 'no RWF_DONTCACHE'; exit 1; }
  echo "$kind: $line"
  result="$result$kind: $line|"
  release
  rm -f "$scratch/image"
done
twice='cached once, uncached in 4 KiB nearly twice, in 64 KiB more than once, without readahead once'
[ "$result" = "ext4: $twice|xfs: $twice|" ] && exit 0
echo 'this has changed'
exit 1
