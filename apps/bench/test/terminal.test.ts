import { stripVTControlCharacters } from 'node:util'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ProgressView } from '../src/progress.ts'
import { terminalColumns, textWidth, wrapText } from '../src/terminal.ts'
import { textTable } from '../src/text-table.ts'

const head = ['case', 'touched', 'wait p50 / p99']
const rows = [
  ['shmem · sweep', '3.31 GB/s', '4.1 ms / 9.9 ms'],
  ['file · random', '820 MB/s', '11 ms / 120 ms'],
]

afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

describe('a table', () => {
  it('aligns names to the left and figures to the right where it fits', () => {
    expect(stripVTControlCharacters(textTable(head, rows, 1, 80)).split('\n')).toEqual([
      'case             touched   wait p50 / p99',
      '─────────────  ─────────  ───────────────',
      'shmem · sweep  3.31 GB/s  4.1 ms / 9.9 ms',
      'file · random   820 MB/s   11 ms / 120 ms',
    ])
  })

  it('becomes a card for each row where it does not fit, with as many figures side by side as fit', () => {
    const narrow = stripVTControlCharacters(textTable(head, rows, 1, 32)).split('\n')
    expect(narrow).toEqual([
      'case',
      '────',
      'shmem · sweep',
      '  touched         3.31 GB/s',
      '  wait p50 / p99  4.1 ms / 9.9 ms',
      'file · random',
      '  touched         820 MB/s',
      '  wait p50 / p99  11 ms / 120 ms',
    ])
    const wide = [...head, 'loop p99', 'CPU']
    const cells = rows.map((row) => [...row, '5.0 ms', '0.33'])
    const cards = stripVTControlCharacters(textTable(wide, cells, 1, 56)).split('\n')
    expect(cards.slice(2, 5)).toEqual([
      'shmem · sweep',
      '  touched   3.31 GB/s   wait p50 / p99  4.1 ms / 9.9 ms',
      '  loop p99  5.0 ms      CPU             0.33',
    ])
  })

  it('fits at every width from the widest pair on, whatever its cells hold', () => {
    const wide = ['backend', 'what', ...Array.from({ length: 9 }, (_, at) => `figure ${at}`)]
    const cells = Array.from({ length: 3 }, (_, row) => [
      `backend ${row}`,
      'a name in several words that is broken where it has to be',
      ...Array.from({ length: 9 }, (_, at) => '9'.repeat((at * 7 + row) % 12)),
    ])
    for (let columns = 30; columns <= 200; columns++) {
      const lines = textTable(wide, cells, 2, columns).split('\n')
      expect(Math.max(...lines.map(textWidth)), `at ${columns} columns`).toBeLessThanOrEqual(columns)
    }
  })

  it('keeps the lines of cells that have several', () => {
    const text = textTable(['hit rate', 'pool'], [['zipf\n  stored', '0.91\n4000']], 1, 80)
    expect(stripVTControlCharacters(text).split('\n').slice(2)).toEqual(['zipf      0.91', '  stored  4000'])
  })

  it('counts wide characters as two columns and colours as none', () => {
    expect(textWidth('\u001b[31m日本 a\u001b[39m')).toBe(6)
    const text = stripVTControlCharacters(
      textTable(
        ['name', 'x'],
        [
          ['日本', '1'],
          ['abcd', '2'],
        ],
        1,
        80,
      ),
    )
    expect(text.split('\n').slice(2)).toEqual(['日本  1', 'abcd  2'])
  })
})

describe('lines', () => {
  it('are broken between words, and go on indented', () => {
    expect(wrapText('one two three four', 9)).toBe('one two\n  three\n  four')
    expect(wrapText('a /very/long/path b', 6)).toBe('a\n  /very/long/path\n  b')
  })

  it('are as wide as COLUMNS says, else as the terminal, else 80', () => {
    vi.stubEnv('COLUMNS', '123')
    expect(terminalColumns({ columns: 99 })).toBe(123)
    vi.stubEnv('COLUMNS', 'wide')
    expect(terminalColumns({ columns: 99 })).toBe(99)
    // Some pseudo-terminals say that they have no columns.
    expect(terminalColumns({ columns: 0 })).toBe(80)
    expect(terminalColumns({})).toBe(80)
  })
})

describe('the moving line', () => {
  function written(view: ProgressView, show: (view: ProgressView) => void): string {
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
    show(view)
    return write.mock.calls.map(([text]) => String(text)).join('')
  }
  const showCase = (view: ProgressView) => {
    view.begin('[3/8] a backend with a long label · a workload', 'rounds')
    view.progress(10 * 2 ** 20, 40 * 2 ** 20)
    view.phase('verify')
    view.end()
  }

  it.each(['20', '40', '80', '160'])(
    'takes less than a line of %s columns, and nothing stays of it',
    (columns) => {
      vi.stubEnv('COLUMNS', columns)
      const text = written(new ProgressView(true), showCase)
      const drawn = text.split('\r')
      expect(drawn.length).toBeGreaterThan(2)
      for (const line of drawn) expect(textWidth(line)).toBeLessThan(Number(columns))
      expect(stripVTControlCharacters(drawn.at(-1)!)).toBe('')
      expect(text).not.toContain('\n')
    },
  )

  it('is not there without a terminal', () => {
    expect(written(new ProgressView(false), showCase)).toBe('')
  })
})
