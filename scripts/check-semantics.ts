/**
 * Checks the ledger `docs/semantics.md` against the specification's numbers and against the tests that ran.
 *
 * A row is `| T12 | what Spillway does | evidence |`. Evidence is one or more tests, each written
 * `packages/core/test/tagging.test.ts › words that stand in the test's full name`, separated by `<br>`; or
 * `does not apply: reason`. Every number has to have a row, and every test named has to have run and passed in the last
 * `npm test`, whose results are in `.vitest/results.json`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

interface TestResults {
  testResults: { name: string; assertionResults: { fullName: string; status: string }[] }[]
}

const root = join(import.meta.dirname, '..')
const numbered = (letter: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${letter}${index + 1}`)
const required = [...numbered('T', 86), ...numbered('B', 19), ...numbered('I', 12)]
const kunitCases = readFileSync(join(root, 'docs/semantics.md'), 'utf8')
  .split('\n')
  .filter((line) => /^\| `ttm_/.test(line)).length
const minimumKunitCases = 55

const results: TestResults = JSON.parse(readFileSync(join(root, '.vitest/results.json'), 'utf8'))
const testsByFile = new Map(
  results.testResults.map((file) => [file.name.slice(root.length + 1), file.assertionResults]),
)

const problems: string[] = []
const rows = new Map<string, string>()
for (const line of readFileSync(join(root, 'docs/semantics.md'), 'utf8').split('\n')) {
  const cells = line.split('|').map((cell) => cell.trim())
  const label = cells[1]?.replaceAll('`', '') ?? ''
  if (!/^([TBI]\d+|ttm_\w+.*|xe_bo_\w+.*)$/.test(label)) continue
  const evidence = cells.at(-2) ?? ''
  if (rows.has(label)) problems.push(`${label} has two rows`)
  rows.set(label, evidence)
  if (/^does not apply: .{20,}/.test(evidence)) continue
  for (const reference of evidence.split('<br>')) {
    const [file, words] = reference.split('›').map((part) => part.trim().replaceAll('`', ''))
    const tests = testsByFile.get(file ?? '')
    if (!tests || !words) {
      problems.push(`${label}: "${reference.trim()}" names no test file that ran`)
    } else if (!tests.some((test) => test.fullName.includes(words) && test.status === 'passed')) {
      problems.push(`${label}: no test of ${file} with "${words}" in its name ran and passed`)
    }
  }
}
for (const label of required) if (!rows.has(label)) problems.push(`${label} has no row`)
if (kunitCases < minimumKunitCases)
  problems.push(`${kunitCases} KUnit cases restated; there are ${minimumKunitCases}`)

for (const problem of problems) console.log(problem)
console.log(
  problems.length === 0 ? `${rows.size} rows hold` : `${problems.length} problems in docs/semantics.md`,
)
process.exitCode = problems.length === 0 ? 0 : 1
