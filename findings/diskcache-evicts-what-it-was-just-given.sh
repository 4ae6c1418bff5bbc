#!/usr/bin/env bash
# diskcache-evicts-what-it-was-just-given.sh: one value that is larger than the limit empties a diskcache, the next values included.
#
# diskcache of Python keeps values in files up to size_limit bytes. When it is over the limit, each set() removes up to ten, in the order of its
# policy, however much they free. A value that is larger than the limit is taken and comes late in that order: ten others go for it when it
# is set, nine more with the next value, and only then it goes itself, together with the value that is being set, for ten
# are removed and not as many as have to be. So that set() returns True, and the value is not there, in a cache that is empty.
# Twenty values of 40 KB are lost for one that could not be kept.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with diskcache 5.6.3 on Python 3.11, 30 November 2026; limit 1 MiB, 20 values of 40,000 bytes, one of 4 MiB, then small ones:
#   least-recently-stored, least-recently-used, least-frequently-used:
#     20 kept; large: set True, 11 kept; small: set True, there True, 2 kept; small: set True, there False, 0 kept; small: set True, there True, 1 kept
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
python3 -m venv environment >/dev/null && environment/bin/pip install -qqq --disable-pip-version-check diskcache==5.6.3 2>/dev/null ||
  { echo 'cannot run: pip install'; exit 77; }
cat > try.py <<'PROGRAM'
import diskcache

def look(policy):
    cache = diskcache.Cache(policy, size_limit=1 << 20, eviction_policy=policy)
    for key in range(20):
        cache.set(key, bytes(40_000))
    line = f'{policy}: {len(cache)} kept; large: set {cache.set("large", bytes(4 << 20))}, {len(cache)} kept'
    for key in ('a', 'b', 'c'):
        line += f'; small: set {cache.set(key, bytes(100))}, there {key in cache}, {len(cache)} kept'
    return line

for policy in ('least-recently-stored', 'least-recently-used', 'least-frequently-used'):
    print(look(policy))
PROGRAM
result=$(environment/bin/python try.py) || exit 1
echo "$result"
emptied='20 kept; large: set True, 11 kept; small: set True, there True, 2 kept; small: set True, there False, 0 kept; small: set True, there True, 1 kept'
expected="least-recently-stored: $emptied
least-recently-used: $emptied
least-frequently-used: $emptied"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
