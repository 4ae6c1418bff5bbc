import { describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import type { ResidentSet } from '../src/residency/resident-set.ts'
import { HandleCursor } from '../src/table/handle-cursor.ts'
import { page } from './support/bytes.ts'
import { setup } from './support/setup.ts'

/** A pool with one chunk of eight pages in memory, dirty and pinned by nobody. */
async function residentChunk() {
  const subject = await setup({ pages: 8, limitBytes: 16 * page })
  await subject.buffer.fill(1)
  const { residents } = machineOf(subject.pool)
  const [buffer] = residents.buffers.values()
  const chunk = buffer!.table.chunkAt(0)
  return { subject, residents, buffer: buffer!, chunk }
}

describe('the owner of chunk state', () => {
  const refused: readonly [string, RegExp, (residents: ResidentSet, chunk: number) => void][] = [
    [
      'lets go of what nobody pins',
      /nobody pins/,
      (residents, chunk) => residents.unpin(chunk, residents.bufferOf(chunk)),
    ],
    ['brings in what is there', /not missing/, (residents, chunk) => residents.beginPageIn(chunk)],
    [
      'gets pages for what is not on its way in',
      /not on its way in/,
      (residents, chunk) => residents.pagesArrived(chunk, 1, false),
    ],
    [
      'gets a copy for what is not on its way in',
      /not on its way in/,
      (residents, chunk) => residents.copyBegan(chunk),
    ],
    [
      'is told that something was written over that was not begun',
      /did not begin/,
      (residents, chunk) => residents.overwritten(residents.bufferOf(chunk), chunk),
    ],
    [
      'gets handles for what is not on its way out',
      /not on its way out/,
      (residents, chunk) => residents.keepStored(chunk, new HandleCursor([{ first: 1, count: 8 }])),
    ],
    [
      'ends a page-out that did not begin',
      /did not begin/,
      (residents, chunk) => residents.pageOutFailed(chunk),
    ],
    ['evicts what is dirty', /pinned, busy or dirty/, (residents, chunk) => residents.evict(chunk, 'idle')],
    [
      'gives up what is pinned',
      /in use/,
      (residents, chunk) => {
        residents.pin(chunk)
        residents.discard(chunk, 'idle')
      },
    ],
    [
      'stores what is being stored',
      /not dirty and idle/,
      (residents, chunk) => {
        residents.beginPageOut(chunk)
        residents.beginPageOut(chunk)
      },
    ],
  ]

  it.each(refused)('finds a defect when somebody %s', async (_, message, verb) => {
    const { residents, chunk } = await residentChunk()
    expect(() => verb(residents, chunk)).toThrow(message)
  })

  it('finds a defect in what a step left behind, whoever made it', async () => {
    const { residents, buffer, chunk, subject } = await residentChunk()
    // By hand: an entry of the page table is lost.
    const table = buffer.table as unknown as { setEmpty(first: number, count: number): void }
    table.setEmpty(7, 1)
    expect(() => residents.pin(chunk)).toThrow('defect in the pool: its page table does not name it')
    expect(subject.pool.verify().length).toBeGreaterThan(0)
  })

  it('finds a chunk that is both dirty and stored', async () => {
    const { residents, chunk } = await residentChunk()
    const chunks = residents.chunks as unknown as { setStoredAt(chunk: number, handle: number): void }
    chunks.setStoredAt(chunk, 5)
    expect(() => residents.pin(chunk)).toThrow('it is dirty and stored')
  })

  it('looks at one chunk for each step, however many there are', async () => {
    const looks: number[] = []
    for (const pages of [64, 1024]) {
      const subject = await setup({ pages, limitBytes: 2048 * page })
      await subject.buffer.fill(1)
      const { residents } = machineOf(subject.pool)
      const [buffer] = residents.buffers.values()
      const chunk = buffer!.table.chunkAt(0)
      let count = 0
      const { chunkAt } = buffer!.table
      Object.assign(buffer!.table, {
        chunkAt: (at: number) => {
          count++
          return chunkAt.call(buffer!.table, at)
        },
      })
      residents.pin(chunk)
      residents.unpin(chunk, buffer!)
      looks.push(count)
      expect(subject.pool.stats().chunks).toBe(pages / 8)
      await subject[Symbol.asyncDispose]()
    }
    expect(looks[0]).toBeGreaterThan(0)
    expect(looks[1]).toBe(looks[0])
  })
})
