import { describe, expect, it } from 'vitest'
import { judgeGoals } from '../src/goals.ts'
import { renderReport, renderReports } from '../src/report/page.ts'
import { isClean } from '../src/results.ts'
import { renderTables } from '../src/table.ts'
import { madeUpCase, madeUpRun } from './made-up-run.ts'

const cases = [
  madeUpCase('shmem', 'sweep', [8e9, 9e9, 10e9]),
  madeUpCase('file', 'sweep', [1e9, 2e9, 3e9]),
  madeUpCase('file', 'random', [3e9, 3e9, 3e9]),
  madeUpCase('peer:direct-file', 'random', [1.5e9, 1.5e9, 1.5e9]),
]
const ceilings = {
  memcpy: 10e9,
  fioBestWrite: 4e9,
  fioBestRead: 3e9,
  fioRandom4KiBDepth4: 20_000,
  fioRandom4KiBDepth32: 40_000,
}
const run = madeUpRun(cases, ceilings)

describe('goals', () => {
  it('hold the medians of a backend against the ceiling of the same run', () => {
    const outcomes = judgeGoals(run)
    const find = (subject: string, what: string) =>
      outcomes.find((each) => each.subject === subject && each.what.startsWith(what))
    expect(find('shmem', 'whole buffers, backup')).toMatchObject({
      measured: '0.90 ×',
      goal: '≥ 0.80 ×',
      met: true,
      against: 'C memcpy',
    })
    expect(find('file', 'whole buffers, restore, with checksums')).toMatchObject({
      measured: '1.00 ×',
      goal: '≥ 0.85 ×',
      met: true,
    })
    expect(find('file', 'single pages restored, depth 4')).toMatchObject({ measured: '0.50 ×', met: false })
    expect(find('file', 'random whole buffers')).toMatchObject({
      measured: '2.00 ×',
      goal: '≥ 1.40 ×',
      met: true,
    })
    expect(find('file', 'peak resident memory')).toMatchObject({ measured: 'limit + 16 MiB', met: true })
    expect(find('file', 'event-loop delay')).toMatchObject({ measured: '2.0 ms, 6.0 ms', met: true })
  })
})

describe('report', () => {
  const page = renderReport(run)

  it('holds what was measured and where', () => {
    for (const text of [
      'Every byte came back',
      '1 GiB verified',
      'abcdef123456',
      'v26.0.0',
      '2 × A processor',
      'ext4',
      '90 % of C memcpy',
      '2.00 ×',
    ]) {
      expect(page).toContain(text)
    }
    expect(page).toContain('fio is not installed &lt;here&gt;')
  })

  it('is one page that fetches nothing and runs nothing', () => {
    expect(page).not.toMatch(/<script|<link|<img|@import|url\((?!#)/)
    expect(page.replaceAll('http://www.w3.org/', '')).not.toMatch(/https?:/)
    expect(page).toContain('prefers-color-scheme: dark')
  })

  it('tells what each chart shows to people who do not see it, and its figures to those who point at it', () => {
    const charts = page.match(/<(?:svg|div)[^>]* role="img"[^>]*>/g) ?? []
    // Whole buffers, two workloads, ceilings; memory of three, waits of two.
    expect(charts).toHaveLength(9)
    for (const chart of charts) expect(chart).toMatch(/ aria-label="[^"]{20,}"/)
    expect(page).toContain(
      'title="shmem · backup: 9.00 GB/s, rounds from 8.00 to 10.00; C memcpy 10.00 GB/s; 90 % of C memcpy"',
    )
    expect(page).toContain('<title>50 % of touches within\nfile 1.000 ms\npeer:direct-file 1.000 ms</title>')
    expect(page).toMatch(/<title>\d\.\d s\nsweep \d+\.\d MiB/)
  })

  it('offers every table as CSV, with figures that nobody rounded', () => {
    const links = [...page.matchAll(/download="([\w-]+)\.csv" href="data:text\/csv;charset=utf-8,([^"]*)"/g)]
    expect(links.map(([, name]) => name)).toEqual(['goals', 'whole-buffers', 'workloads', 'single-pages'])
    const [head, first] = decodeURIComponent(links[2][2]).split('\r\n')
    expect(head).toMatch(/^backend,workload,"touched, GB\/s","wait p50, ms"/)
    expect(first).toMatch(/^shmem,sweep,9,1,3,2,6,0\.4,80,0,0$/)
    expect(page.match(/<table/g)).toHaveLength(links.length)
  })

  it('gives a backend one colour in all charts, and no other meaning to a colour', () => {
    const names = [
      ...page.matchAll(
        /<span class="name">([^<]+)<\/span><span class="track"><i class="value" style="[^"]*background:([^"]+)"/g,
      ),
    ]
    const colours = new Map<string, Set<string>>()
    for (const [, name, colour] of names) {
      const subject = name.split(' · ')[0]
      colours.set(subject, (colours.get(subject) ?? new Set()).add(colour))
    }
    expect(colours.get('shmem')).toEqual(new Set(['var(--c0)']))
    expect(colours.get('file')).toEqual(new Set(['var(--c1)']))
    expect(colours.get('peer:direct-file')).toEqual(new Set(['var(--c2)']))
    expect(colours.get('C memcpy')).toEqual(new Set(['var(--grey)']))
  })

  it('draws memory of all backends on the same scales, and the workloads of one in lines of different dashes', () => {
    const charts = page
      .match(/<svg class="lines".*?<\/svg>/gs)!
      .filter((chart) => chart.includes('seconds since'))
    expect(charts).toHaveLength(3)
    const ticks = charts.map((chart) =>
      [...chart.matchAll(/text-anchor="(?:end|middle)">([\d.]+)</g)].map(([, tick]) => tick),
    )
    expect(ticks[0].length).toBeGreaterThan(4)
    expect(ticks[1]).toEqual(ticks[0])
    expect(ticks[2]).toEqual(ticks[0])
    // The line and its piece beside the name: sweep is solid, random dashed.
    const file = charts[1].match(
      /<path class="line" style="stroke:var\(--c1\)"( stroke-dasharray="[^"]+")?/g,
    )!
    expect(file.filter((line) => line.includes('dasharray'))).toHaveLength(2)
    expect(file.filter((line) => !line.includes('dasharray'))).toHaveLength(2)
  })

  it('has one unit in each column', () => {
    const cells = [...page.matchAll(/<td role="cell" data-label="[^"]*" class="number[^"]*">([^<]*)</g)].map(
      ([, text]) => text,
    )
    expect(cells.length).toBeGreaterThan(50)
    for (const text of cells) expect(text).toMatch(/^(\d+(\.\d+)?|–)$/)
  })

  it('says loudly when a byte was wrong', () => {
    const spoiled = madeUpRun([
      madeUpCase('file', 'sweep', [1e9], { wrongBytes: 3, lostPages: 2, verifiedBytes: 5 }),
    ])
    expect(isClean(spoiled)).toBe(false)
    expect(renderReport(spoiled)).toContain('NOT every byte came back: 3 wrong bytes, 2 lost pages')
    expect(renderTables(spoiled)).toContain('wrongBytes 3, lostPages 2')
  })

  it('can be made of a run in which nothing was measured', () => {
    const empty = {
      ...madeUpRun([]),
      failedCases: [{ backend: 'file', workload: 'sweep', message: 'no <room>' }],
    }
    expect(isClean(empty)).toBe(false)
    expect(renderReport(empty)).toContain('file · sweep failed: no &lt;room&gt;')
  })
})

describe('tables', () => {
  it('show every case with its figures, and the goals', () => {
    const text = renderTables(run)
    for (const expected of [
      'shmem · sweep',
      'file · random',
      'peer:direct-file · random',
      '9.00 (8.00–10.00)',
      '0.90 ×',
      'wrongBytes 0, lostPages 0',
    ]) {
      expect(text).toContain(expected)
    }
  })
})

describe('several runs', () => {
  it('stand side by side on one page, each with all of its figures', () => {
    const slower = madeUpRun([madeUpCase('file', 'sweep', [1e9, 1e9, 1e9])], ceilings)
    const page = renderReports([
      { label: 'before', run },
      { label: '<after>', run: slower },
    ])
    expect(page).toContain('file · sweep (before)')
    expect(page).toContain('file · sweep (&lt;after&gt;)')
    expect(page.match(/<summary>/g)).toHaveLength(2)
    expect(page).not.toContain('<after>')
  })
})

describe('a case that failed', () => {
  it('says where and why, and keeps what was measured before', () => {
    const failed = {
      backend: 'file',
      workload: 'zipf',
      message: 'ENOSPC: full',
      phase: 'load' as const,
      measured: { backupBytesPerSecond: 1e9, pageRestoresPerSecondDepth4: 2000 },
    }
    const text =
      "file · zipf failed in the phase 'load': ENOSPC: full (measured before: backup 1.00 GB/s, pages 4 deep 2.0 k/s)"
    expect(renderTables({ ...run, failedCases: [failed] })).toContain(text)
    expect(renderReport({ ...run, failedCases: [failed] })).toContain(text)
  })
})
