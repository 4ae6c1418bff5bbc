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
 * It holds when every number and every KUnit case has exactly one row, and each row names only tests that ran and passed,
 * at least one of which carries the number in its name; when no reason is shorter than a sentence; and when no row says
 * `not yet`. A row that does not hold is printed, and the exit code is 1.
 */
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { kunitCases } from './semantics/kunit-cases.ts'

interface TestResults {
  testResults: { name: string; assertionResults: { fullName: string; status: string }[] }[]
}

interface Row {
  readonly label: string
  readonly cells: readonly string[]
}

const root = join(import.meta.dirname, '..')
const shortestReason = 60
const shortestWords = 8

const given = process.argv.slice(2)
const resultFiles = given.length > 0 ? given : [join(root, '.vitest/results.json')]
const testsByFile = new Map<string, TestResults['testResults'][number]['assertionResults']>()
for (const resultFile of resultFiles) {
  for (const { name, assertionResults } of readResults(resultFile).testResults) {
    testsByFile.set(relative(root, name), assertionResults)
  }
}

const rows = readFileSync(join(root, 'docs/semantics.md'), 'utf8').split('\n').flatMap(parseRow)
const problems = [
  ...missing(rows),
  ...rows.flatMap((row) => evidenceProblems(row).map((problem) => `${row.label}: ${problem}`)),
  ...unknownNumbers(),
]
for (const problem of problems) console.log(problem)
console.log(problems.length === 0 ? `${rows.length} rows hold` : `${problems.length} problems`)
process.exitCode = problems.length === 0 ? 0 : 1

function readResults(file: string): TestResults {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (failure) {
    throw new Error(`${file} cannot be read; run npm test first`, { cause: failure })
  }
}

function numbered(letter: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${letter}${index + 1}`)
}

function parseRow(line: string): Row[] {
  if (!line.startsWith('| ')) return []
  const cells = line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim())
  const label = cells[0]?.replaceAll('`', '') ?? ''
  return /^([TBI]\d+[a-i]?|ttm_\w+|xe_\w+)$/.test(label) ? [{ label, cells: cells.slice(1) }] : []
}

function missing(found: readonly Row[]): string[] {
  const letters = [...'abcdefghi'].map((letter) => `B19${letter}`)
  const numbers = [...numbered('T', 86), ...numbered('B', 19), ...letters, ...numbered('I', 12)]
  const required = [...numbers, ...kunitCases]
  const counts = new Map(required.map((label) => [label, 0]))
  for (const { label } of found) counts.set(label, (counts.get(label) ?? Number.NaN) + 1)
  return [...counts]
    .filter(([, count]) => count !== 1)
    .map(([label, count]) =>
      Number.isNaN(count) ? `${label} is not a number of the ledger` : `${label} has ${count} rows`,
    )
}

function evidenceProblems({ label, cells }: Row): string[] {
  const found: string[] = []
  const evidence = cells.at(-1) ?? ''
  const columns = /^[TBI]\d/.test(label) ? 3 : 2
  if (cells.length !== columns) return [`has ${cells.length} cells after the first; ${columns} are needed`]
  for (const [index, cell] of cells.entries()) if (cell === '') found.push(`cell ${index + 2} is empty`)
  if (evidence.startsWith('not yet: ')) return [...found, evidence]
  const reason = /^does not apply: (.*)$/.exec(evidence)?.[1]
  if (reason !== undefined) {
    if (reason.length < shortestReason) found.push(`"${reason}" is too short for a reason`)
    return found
  }
  let named = false
  for (const reference of evidence.split('<br>')) {
    const [file = '', words = ''] = reference.split(' › ').map((part) => part.trim())
    const path = `packages/${file.replace('/', '/test/')}.test.ts`
    const tests = testsByFile.get(path)
    if (words.length < shortestWords) found.push(`"${reference.trim()}" names no test: file › words`)
    else if (tests === undefined) found.push(`${path} did not run`)
    else {
      const matching = tests.filter(({ fullName }) => fullName.includes(words))
      if (matching.length === 0) found.push(`no test of ${path} has "${words}" in its name`)
      else if (!matching.every(({ status }) => status === 'passed')) {
        found.push(`"${words}" of ${path}: ${matching.map(({ status }) => status).join(', ')}`)
      }
      named ||= matching.some(({ fullName }) => new RegExp(`\\b${label}([a-i]\\b|\\b)`).test(fullName))
    }
  }
  if (!named && found.length === 0) found.push('none of the tests has the number in its name')
  return found
}

/** Tests that cite a number which does not exist. */
function unknownNumbers(): string[] {
  const last: Record<string, number> = { T: 86, B: 19, I: 12 }
  const found: string[] = []
  for (const [file, tests] of testsByFile) {
    for (const { fullName } of tests) {
      for (const [number, letter, digits] of fullName.matchAll(/\b([TBI])(\d+)(?=[a-i]?[,:])/g)) {
        if (Number(digits) < 1 || Number(digits) > last[letter!]!) {
          found.push(`${file}: "${fullName}" cites ${number}, which does not exist`)
        }
      }
    }
  }
  return found
}
