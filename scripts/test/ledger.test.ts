import { describe, expect, it } from 'vitest'
import { checkLedger, labels, type TestOutcome } from '../semantics/ledger.ts'

const file = 'packages/pool/test/backup.test.ts'

/** A ledger that holds, and the test that every row of it names. */
function ledger(changes: Record<string, string | undefined> = {}) {
  const row = (label: string) => {
    const meaning = /^[TBI]/.test(label) ? ' meaning |' : ''
    return `| \`${label}\` |${meaning} here | ${changes[label] ?? 'pool/backup › does everything'} |`
  }
  return labels
    .filter((label) => !(label in changes) || changes[label] !== undefined)
    .map(row)
    .join('\n')
}

const numbers = labels.join(', ')
const passed: TestOutcome[] = [{ fullName: `${numbers}: does everything`, status: 'passed' }]

function problems(text: string, tests: readonly TestOutcome[] = passed): readonly string[] {
  return checkLedger(text, new Map([[file, tests]])).problems
}

describe('the check of the ledger', () => {
  it('holds when each row names tests that ran and passed', () => {
    expect(problems(ledger())).toEqual([])
    expect(checkLedger(ledger(), new Map([[file, passed]])).rowCount).toBe(86 + 19 + 9 + 12 + 74)
  })

  it('finds a number without a row, with two, and one that does not exist', () => {
    expect(problems(ledger({ T34: undefined }))).toEqual(['T34 has 0 rows'])
    expect(problems(`${ledger()}\n| T34 | meaning | here | pool/backup › does everything |`)).toEqual([
      'T34 has 2 rows',
    ])
    expect(problems(`${ledger()}\n| T87 | meaning | here | pool/backup › does everything |`)[0]).toBe(
      'T87 is not a number of the ledger',
    )
  })

  it('fails for what is not there yet, and for a reason that is none', () => {
    expect(problems(ledger({ T34: 'not yet: the gate' }))).toEqual(['T34: not yet: the gate'])
    expect(problems(ledger({ T34: 'does not apply: no need' }))).toEqual([
      'T34: "no need" is too short for a reason',
    ])
    expect(problems(ledger({ T34: `does not apply: ${'because '.repeat(10)}` }))).toEqual([])
  })

  it('fails for tests that are not there, did not run, did not pass, or are about something else', () => {
    expect(problems(ledger({ T34: 'pool/backup › does nothing' }))).toEqual([
      `T34: no test of ${file} has "does nothing" in its name`,
    ])
    expect(problems(ledger({ T34: 'pool/other › does everything' }))).toEqual([
      'T34: packages/pool/test/other.test.ts did not run',
    ])
    expect(problems(ledger({ T34: 'pool/backup' }))).toEqual([
      'T34: "pool/backup" names no test: file › words',
    ])
    const skipped = { fullName: 'T34: is left out', status: 'skipped' }
    expect(problems(ledger({ T34: 'pool/backup › is left out' }), [...passed, skipped])).toEqual([
      `T34: skipped: "T34: is left out" of ${file}`,
    ])
    const other = { fullName: 'T3, T345: another thing', status: 'passed' }
    expect(problems(ledger({ T34: 'pool/backup › another thing' }), [...passed, other])).toEqual([
      'T34: none of the tests has the number in its name',
      `${file}: "T3, T345: another thing" cites T345, which does not exist`,
    ])
  })

  it('fails for a row with too few cells', () => {
    const text = ledger({ T34: undefined })
    expect(problems(`${text}\n| T34 | here | pool/backup › does everything |`)).toEqual([
      'T34: has 2 cells after the first; 3 are needed',
    ])
  })
})
