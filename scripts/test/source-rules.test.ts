import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { compareWithAllowance, sourceProblems } from '../source-rules.ts'

const root = mkdtempSync(join(tmpdir(), 'spillway-rules-'))

/** The keys of what is wrong with some files. */
function problemsOf(files: Record<string, string>): string[] {
  const folder = mkdtempSync(join(root, 'case-'))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  return sourceProblems(folder, folder).map(({ key, count }) => `${key}: ${count}`)
}

const lines = (count: number) => Array.from({ length: count }, () => '  x++').join('\n')

describe('the rules for sources', () => {
  afterAll(() => rmSync(root, { recursive: true }))

  it('let a function have 60 lines and four parameters, and no more, whatever kind of function it is', () => {
    expect(
      problemsOf({
        'fits.ts': `function f(a: 1, b: 1, c: 1, d: 1) {\n${lines(58)}\n}`,
        'function.ts': `function f() {\n${lines(59)}\n}`,
        'method.ts':
          'class A {\n  constructor(a: 1, b: 1, c: 1, d: 1, e: 1) {}\n  #m(a, b, c, d, e, f) {}\n}',
        'arrow.ts': `export function outer() { const inner = () => {\n${lines(59)}\n} }`,
        'interface.ts': 'interface System { mmap(a: 1, b: 1, c: 1, d: 1, e: 1, f: 1): number }',
      }),
    ).toEqual([
      'arrow.ts outer lines: 61',
      'arrow.ts inner lines: 61',
      'function.ts f lines: 61',
      'method.ts constructor of A parameters: 5',
      'method.ts #m parameters: 6',
    ])
  })

  it('find circles of imports, through types and through other files too', () => {
    expect(
      problemsOf({
        'a.ts': "import { b } from './deep/b.ts'",
        'deep/b.ts': "export type { C } from '../c.ts'",
        'c.ts': "type A = import('./a.ts').A",
        'd.ts': "import './a.ts'\nimport 'node:fs'\nimport { x } from '@spillway/core'",
      }),
    ).toEqual(['files import each other: a.ts, c.ts, deep/b.ts: 3'])
  })

  it('let a file have 500 lines', () => {
    expect(problemsOf({ 'fits.ts': lines(500), 'long.ts': lines(501) })).toEqual(['long.ts lines: 501'])
  })

  it('allow what is known, as bad as it is and no worse, and say what is known and gone', () => {
    const problems = [
      { key: 'same', count: 7 },
      { key: 'better', count: 6 },
      { key: 'worse', count: 8 },
      { key: 'new', count: 5 },
    ]
    expect(compareWithAllowance(problems, { same: 7, better: 7, worse: 7, gone: 7 })).toEqual({
      worse: ['worse: 8', 'new: 5'],
      unneeded: ['gone'],
    })
  })
})
