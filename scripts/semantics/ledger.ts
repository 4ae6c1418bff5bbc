import { kunitCases } from './kunit-cases.ts'

/** What became of one test. */
export interface TestOutcome {
  readonly fullName: string
  readonly status: string
}

interface Row {
  readonly label: string
  readonly cells: readonly string[]
}

const shortestReason = 60
const shortestWords = 8
const lastNumbers: Readonly<Record<string, number>> = { T: 86, B: 19, I: 12 }

/** Everything that has a row of its own: the numbers, the nine letters of B19, and the kernel's unit tests. */
export const labels: readonly string[] = [
  ...Object.entries(lastNumbers).flatMap(([letter, count]) =>
    Array.from({ length: count }, (_, index) => `${letter}${index + 1}`),
  ),
  ...[...'abcdefghi'].map((letter) => `B19${letter}`),
  ...kunitCases,
]

/** The rows of the ledger, and what does not hold about them: nothing, in a healthy one. */
export function checkLedger(
  text: string,
  /** By path within the repository. */
  testsByFile: ReadonlyMap<string, readonly TestOutcome[]>,
): { readonly rowCount: number; readonly problems: readonly string[] } {
  const rows = text.split('\n').flatMap(parseRow)
  const problems = [
    ...countProblems(rows),
    ...rows.flatMap((row) => rowProblems(row, testsByFile).map((problem) => `${row.label}: ${problem}`)),
    ...unknownNumbers(testsByFile),
  ]
  return { rowCount: rows.length, problems }
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

function countProblems(rows: readonly Row[]): string[] {
  const counts = new Map(labels.map((label) => [label, 0]))
  const unknown: string[] = []
  for (const { label } of rows) {
    const count = counts.get(label)
    if (count === undefined) unknown.push(`${label} is not a number of the ledger`)
    else counts.set(label, count + 1)
  }
  const wrong = [...counts].filter(([, count]) => count !== 1)
  return [...unknown, ...wrong.map(([label, count]) => `${label} has ${count} rows`)]
}

function rowProblems(
  { label, cells }: Row,
  testsByFile: ReadonlyMap<string, readonly TestOutcome[]>,
): string[] {
  const columns = /^[TBI]\d/.test(label) ? 3 : 2
  if (cells.length !== columns) return [`has ${cells.length} cells after the first; ${columns} are needed`]
  const found = cells.flatMap((cell, index) => (cell === '' ? [`cell ${index + 2} is empty`] : []))
  const evidence = cells.at(-1)!
  if (evidence.startsWith('not yet: ')) return [...found, evidence]
  const reason = /^does not apply: (.*)$/.exec(evidence)?.[1]
  if (reason !== undefined) {
    return reason.length < shortestReason ? [...found, `"${reason}" is too short for a reason`] : found
  }
  const number = new RegExp(`\\b${label}([a-i]\\b|\\b)`)
  let isNumbered = false
  for (const reference of evidence.split('<br>')) {
    const [file = '', words = ''] = reference.split(' › ').map((part) => part.trim())
    const path = `packages/${file.replace('/', '/test/')}.test.ts`
    const tests = testsByFile.get(path)
    if (words.length < shortestWords) {
      found.push(`"${reference.trim()}" names no test: file › words`)
      continue
    }
    if (tests === undefined) {
      found.push(`${path} did not run`)
      continue
    }
    const matching = tests.filter(({ fullName }) => fullName.includes(words))
    if (matching.length === 0) found.push(`no test of ${path} has "${words}" in its name`)
    for (const { fullName, status } of matching) {
      if (status !== 'passed') found.push(`${status}: "${fullName}" of ${path}`)
    }
    isNumbered ||= matching.some(({ fullName }) => number.test(fullName))
  }
  if (!isNumbered && found.length === 0) found.push('none of the tests has the number in its name')
  return found
}

/** Tests that cite a number which does not exist. */
function unknownNumbers(testsByFile: ReadonlyMap<string, readonly TestOutcome[]>): string[] {
  const found: string[] = []
  for (const [file, tests] of testsByFile) {
    for (const { fullName } of tests) {
      for (const [number, letter, digits] of fullName.matchAll(/\b([TBI])(\d+)(?=[a-i]?[,:])/g)) {
        if (Number(digits) >= 1 && Number(digits) <= lastNumbers[letter!]!) continue
        found.push(`${file}: "${fullName}" cites ${number}, which does not exist`)
      }
    }
  }
  return found
}
