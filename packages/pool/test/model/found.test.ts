import { describe, expect, it } from 'vitest'
import { Pages } from '../../src/memory/pages.ts'
import { RecordingProvider } from '../exhaustive/support/recording-provider.ts'
import { page } from '../support/bytes.ts'

/** What the model found, each as short as it gets. */
describe('histories that failed once', () => {
  const cached = 0
  const writeCombined = 1

  function pagesOfWholeBlocks(limitPages: number): Pages {
    const pages = new Pages(page, 2, limitPages, limitPages)
    pages.slabs.provider = new RecordingProvider({ pageExactRelease: false })
    return pages
  }

  it('I6, T16: a piece of an old slab is not taken for zeros because room was made for a new slab', () => {
    const pages = pagesOfWholeBlocks(8)
    // One slab of which two pages are used and two are idle with old bytes in them, and one that is idle as a whole.
    pages.allocate(1)
    const old = pages.allocate(1)
    const whole = pages.allocate(2)
    pages.slabs.bytes(old, 2).fill(0xaa)
    pages.free(old, 1, false, cached)
    pages.free(whole, 2, false, cached)
    const taken = pages.allocate(1, writeCombined)
    const isZero = pages.slabs.bytes(taken, 2).every((byte) => byte === 0)
    expect(pages.takenZero).toBe(isZero)
  })

  it('T21, T25: idle memory that stays resident inside its slab is found when it is given back at the limit', () => {
    const pages = pagesOfWholeBlocks(4)
    pages.allocate(1)
    const idle = pages.allocate(1)
    pages.free(idle, 1, false, cached)
    expect(pages.allocate(0)).toBeGreaterThanOrEqual(0)
    expect(pages.takenZero).toBe(false)
  })
})
