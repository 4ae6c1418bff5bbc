import { type Backup, memoryBackup, replaceHost } from '@spillway/core'
import { Zstd } from '@spillway/native'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { compressedBackup } from '../src/index.ts'
import { contentOf, pageBytes } from './content.ts'

const unitPages = 16
const units = 64
const maxStretchMs = 0.5

let clockMs = performance.now()
beforeAll(() => replaceHost({ nowMs: () => clockMs }))
afterAll(() => replaceHost())
afterEach(() => {
  vi.restoreAllMocks()
})

/** Only compressing and decompressing move the clock, by so much a unit; tells the most units of one turn of the event loop. */
async function countUnits(unitMs: number) {
  let inThisTurn = 0
  let isOver = false
  const seen = { most: 0, units: 0 }
  const worked = () => {
    clockMs += unitMs
    seen.units++
    seen.most = Math.max(seen.most, ++inThisTurn)
  }
  const { compress, decompress } = Zstd.prototype
  vi.spyOn(Zstd.prototype, 'compress').mockImplementation(function (this: Zstd, source, target) {
    worked()
    return compress.call(this, source, target)
  })
  vi.spyOn(Zstd.prototype, 'decompress').mockImplementation(function (this: Zstd, source, target) {
    worked()
    return decompress.call(this, source, target)
  })
  const turn = () => {
    inThisTurn = 0
    if (!isOver) setImmediate(turn)
  }
  setImmediate(turn)
  // What was worked on before is over, and each turn that is counted begins before the pace's.
  for (let turns = 0; turns < 2; turns++) await new Promise((resolve) => setImmediate(resolve))
  return {
    seen,
    end: () => {
      isOver = true
    },
  }
}

/** Copies a page of each unit in calls that are begun together. */
function startCopies(backup: Backup, first: number, into: Uint8Array): Promise<unknown> {
  return Promise.all(
    Array.from({ length: units }, (_, unit) => {
      const span = into.subarray(unit * pageBytes, (unit + 1) * pageBytes)
      return new Promise<void>((resolve, reject) => {
        const began = backup.startCopy?.(first + unit * unitPages, span, (_, error) =>
          error === undefined ? resolve() : reject(error),
        )
        // There is staging memory for some; the others go the long way.
        if (began !== true) {
          backup
            .copyPages([{ first: first + unit * unitPages, count: 1 }], [span])
            .then(({ error }) => (error === undefined ? resolve() : reject(error)))
        }
      })
    }),
  )
}

describe('the event loop has its turn while zstd of the program works', () => {
  // As long as the pace expects, and far longer.
  for (const unitMs of [0.2, 3]) {
    const mostUnits = Math.floor(maxStretchMs / unitMs) + 1

    it(`no turn does more than one unit beyond its half millisecond, with ${unitMs} ms a unit`, async () => {
      await using backup = compressedBackup(memoryBackup())
      // What is chosen first is chosen by a trial of its own.
      const { handles: none } = await backup.backupPages([contentOf('half', 3, unitPages)])
      expect(backup.stats().codec).toBe('zstd (native)')
      await backup.drop(none)
      const content = contentOf('text', 7, units * unitPages)

      const compressing = await countUnits(unitMs)
      // Four calls side by side: together they have the same turns as one.
      const quarterBytes = content.byteLength / 4
      const results = await Promise.all(
        [0, 1, 2, 3].map((quarter) =>
          backup.backupPages([content.subarray(quarter * quarterBytes, (quarter + 1) * quarterBytes)]),
        ),
      )
      compressing.end()
      expect(compressing.seen).toEqual({ most: mostUnits, units })
      vi.restoreAllMocks()

      const reading = await countUnits(unitMs)
      const into = new Uint8Array(content.byteLength)
      await Promise.all(
        results.map(({ handles }, quarter) =>
          backup.copyPages(handles, [into.subarray(quarter * quarterBytes, (quarter + 1) * quarterBytes)]),
        ),
      )
      reading.end()
      expect(Buffer.compare(into, content)).toBe(0)
      expect(reading.seen).toEqual({ most: mostUnits, units })
    })

    it(`nor when many started copies end in one turn, with ${unitMs} ms a unit`, async () => {
      await using backup = compressedBackup(memoryBackup())
      const content = contentOf('text', 8, units * unitPages)
      const { handles } = await backup.backupPages([content])
      const [{ first, count }] = handles
      expect(count).toBe(units * unitPages)
      const into = new Uint8Array(units * pageBytes)
      const reading = await countUnits(unitMs)
      await startCopies(backup, first, into)
      reading.end()
      for (let unit = 0; unit < units; unit++) {
        const page = content.subarray(unit * unitPages * pageBytes, (unit * unitPages + 1) * pageBytes)
        expect(Buffer.compare(into.subarray(unit * pageBytes, (unit + 1) * pageBytes), page)).toBe(0)
      }
      expect(reading.seen).toEqual({ most: mostUnits, units })
    })
  }
})
