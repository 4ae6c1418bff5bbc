import { describe, expect, it } from 'vitest'
import { affordableShare, CaseBudget } from '../src/case/case-budget.ts'
import { RunBudget, shortenedLines } from '../src/run-budget.ts'
import { madeUpCase } from './made-up-run.ts'

describe('the time of a run', () => {
  it('is shared out in equal parts of what is left', () => {
    const budget = new RunBudget(100, 3, performance.now())
    expect(budget.next()).toBeCloseTo(30_000, -2)
    expect(budget.next()).toBeCloseTo(45_000, -2)
    expect(budget.next()).toBeCloseTo(90_000, -2)
    expect(new RunBudget(10, 4, performance.now() - 60_000).next()).toBe(0)
    expect(new RunBudget(undefined, 4, performance.now()).next()).toBeUndefined()
  })

  it('gives the phases of a case what loading and verifying leave', () => {
    const budget = new CaseBudget(20_000)
    expect(budget.allot('whole buffers', 10_000)).toBeCloseTo(5000, -2)
    expect(budget.allot('single pages', 10_000)).toBeCloseTo(4000, -2)
    expect(budget.allot('rounds', 10_000)).toBeCloseTo(10_000, -2)
    expect(budget.allot('rounds', 30_000)).toBe(0)
    expect(new CaseBudget(undefined).allot('rounds', 30_000)).toBe(Number.POSITIVE_INFINITY)
  })

  it('shortens to no less than an eighth, and not at all where there is time', () => {
    expect(affordableShare(100, 50)).toBe(1)
    expect(affordableShare(100, 200)).toBe(0.5)
    expect(affordableShare(0, 200)).toBe(1 / 8)
    expect(affordableShare(Number.POSITIVE_INFINITY, 200)).toBe(1)
  })

  it('remembers what was shortened most, and says it in one line', () => {
    const budget = new CaseBudget(1)
    budget.note('single pages', 1)
    budget.note('whole buffers', 0.5)
    budget.note('whole buffers', 0.75)
    expect(budget.shortened).toEqual({ 'whole buffers': 0.5 })
    const short = madeUpCase('file', 'zipf', [1e9], { shortened: budget.shortened })
    expect(shortenedLines([madeUpCase('file', 'sweep', [1e9]), short], 90)).toEqual([
      'file · zipf: each round moved less to stay within 90 s (--budget): whole buffers 50 %',
    ])
  })
})
