#!/usr/bin/env bash
# duckdb-delete-refused-for-memory-stays-in-the-way.sh: after a DELETE that ran out of memory, DuckDB cannot delete those rows any more.
#
# With a memory limit DuckDB moves tables to temporary files, so a table may be several times as large as the limit. The notes that a DELETE makes
# stay in memory, and a DELETE of every second row ends with OutOfMemoryException. Its transaction is rolled back: all rows are there and
# can be counted. But deleting them again fails with "Conflict on tuple deletion!", though no other transaction exists, and so does
# TRUNCATE, with ten times the memory, too, and for ever, as if some rows were still marked by the transaction that is gone. A file has
# to be closed and opened again, and of a database in memory the table can only be dropped. With a limit that suffices nothing of this is seen.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with DuckDB 1.5.6 on Python 3.11, 30 November 2026; 8,000,000 rows of 24 bytes:
#   64MB, in memory: half OutOfMemoryException, rows 8000000; then 640MB: all TransactionException, truncate TransactionException, drop ok
#   64MB, file:      half OutOfMemoryException, rows 8000000; then 640MB: all TransactionException, truncate TransactionException; opened again: all ok
#   640MB:           half ok, rows 4000000; then 640MB: all ok, truncate ok, drop ok
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
python3 -m venv environment >/dev/null && environment/bin/pip install -qqq --disable-pip-version-check duckdb==1.5.6 ||
  { echo 'cannot run: pip install'; exit 77; }
cat > try.py <<'PROGRAM'
import duckdb

def outcome(connection, statement):
    try:
        connection.execute(statement)
        return 'ok'
    except duckdb.Error as error:
        return type(error).__name__

def look(place, limit):
    options = {'memory_limit': limit, 'temp_directory': 'spilled', 'threads': 1}
    connection = duckdb.connect(place, config=options)
    connection.execute('CREATE TABLE pages AS SELECT i, hash(i) AS a, hash(i + 1) AS b FROM range(8000000) AS numbers(i)')
    half = outcome(connection, 'DELETE FROM pages WHERE i % 2 = 0')
    rows = connection.execute('SELECT count(*) FROM pages').fetchone()[0]
    connection.execute("SET memory_limit = '640MB'")
    line = f'half {half}, rows {rows}; then 640MB: all {outcome(connection, "DELETE FROM pages")}'
    line += f', truncate {outcome(connection, "TRUNCATE pages")}'
    if place == ':memory:':
        return f'{line}, drop {outcome(connection, "DROP TABLE pages")}'
    connection.close()
    return f'{line}; opened again: all {outcome(duckdb.connect(place, config=options), "DELETE FROM pages")}'

print('64MB, in memory:', look(':memory:', '64MB'))
print('64MB, file:', look('pages.db', '64MB'))
print('640MB:', look(':memory:', '640MB'))
PROGRAM
result=$(environment/bin/python try.py) || exit 1
echo "$result"
refused='half OutOfMemoryException, rows 8000000; then 640MB: all TransactionException, truncate TransactionException'
expected="64MB, in memory: $refused, drop ok
64MB, file: $refused; opened again: all ok
640MB: half ok, rows 4000000; then 640MB: all ok, truncate ok, drop ok"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
