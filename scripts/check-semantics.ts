/**
 * Checks the ledger `docs/semantics.md` against the numbers that it has to answer for and against the tests that ran.
 *
 * ```sh
 * npm test && npm run check:semantics                  # or, with results of a part of the tests:
 * node scripts/check-semantics.ts results.json …
 * ```
 *
 * A row is `| T12 | what the number means | what Spillway does | evidence |`. Evidence is one or more tests separated by
 * `<br>`, each written `pool/backup › words of the test's full name`, where `pool/backup` is the file
 * `packages/pool/test/backup.test.ts`; or it is `does not apply: reason`, or `not yet: what is missing`.
 *
 * The ledger holds when every number and every case of the kernel's unit tests has exactly one row, and each row names only
 * tests that ran and passed, at least one of which carries the number in its name; when no reason is shorter than a
 * sentence; and when no row says `not yet`. What does not hold is printed, and the exit code is 1.
 */
import { globSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { checkLedger, type TestOutcome } from './semantics/ledger.ts'

interface TestResults {
  readonly testResults: readonly {
    readonly name: string
    readonly assertionResults: readonly TestOutcome[]
  }[]
}

const root = join(import.meta.dirname, '..')
const given = process.argv.slice(2)
const testsByFile = new Map<string, readonly TestOutcome[]>()
for (const file of given.length > 0 ? given : globSync(join(root, 'packages/*/.vitest/results.json'))) {
  for (const { name, assertionResults } of readResults(file).testResults) {
    testsByFile.set(relative(root, name), assertionResults)
  }
}

const { rowCount, problems } = checkLedger(readFileSync(join(root, 'docs/semantics.md'), 'utf8'), testsByFile)
for (const problem of problems) console.log(problem)
console.log(problems.length === 0 ? `${rowCount} rows hold` : `${problems.length} problems`)
process.exitCode = problems.length === 0 ? 0 : 1

function readResults(file: string): TestResults {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (failure) {
    throw new Error(`${file} cannot be read; run npm test first`, { cause: failure })
  }
}
