import type { HandleRun } from '@spillway/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openShmemBackup } from '../src/index.ts'
import { media } from './media.ts'

const pageSizeBytes = 4096
const capacityPages = 600

type Step =
  | { readonly kind: 'store'; readonly pages: number; readonly isAborted: boolean }
  | { readonly kind: 'drop' | 'copy'; readonly which: number; readonly part: number }
  | { readonly kind: 'reserve'; readonly pages: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('store' as const),
      pages: fc.integer({ min: 1, max: 300 }),
      isAborted: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('drop' as const, 'copy' as const),
      which: fc.nat(),
      part: fc.nat(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('reserve' as const), pages: fc.integer({ min: 1, max: 700 }) }),
  },
)

for (const [medium, options] of Object.entries(media)) {
  describe(`any history (${medium})`, () => {
    it('I1, I3, I11: gives back every byte, and counts what an array of bytes counts', async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { maxLength: 40 }),
          fc.constantFrom(0, 64, 600),
          async (steps, warmPages) => {
            await using backup = await openShmemBackup({
              capacityBytes: capacityPages * pageSizeBytes,
              warmBytes: warmPages * pageSizeBytes,
              ...options(),
            })
            const live: { run: HandleRun; bytes: Uint8Array }[] = []
            const dropped: HandleRun[] = []
            let livePages = 0
            let seed = 1
            for (const step of steps) {
              if (step.kind === 'store') {
                const bytes = new Uint8Array(step.pages * pageSizeBytes)
                const words = new Uint32Array(bytes.buffer)
                for (let page = 0; page < step.pages; page++)
                  words.fill(seed++ * 0x9e3779b1, page * 1024, (page + 1) * 1024)
                const controller = new AbortController()
                const call = backup.backupPages([bytes], { signal: controller.signal })
                if (step.isAborted) controller.abort()
                const { handles, error } = await call
                let stored = 0
                for (const run of handles) {
                  const from = stored * pageSizeBytes
                  live.push({ run, bytes: bytes.subarray(from, from + run.count * pageSizeBytes) })
                  stored += run.count
                }
                expect(error === undefined).toBe(stored === step.pages)
                livePages += stored
              } else if (step.kind === 'reserve') {
                const fits = step.pages <= capacityPages - livePages
                const outcome = await backup.reserve(step.pages * pageSizeBytes).then(
                  async (reservation) => {
                    await reservation.release()
                    return true
                  },
                  () => false,
                )
                expect(outcome).toBe(fits)
              } else if (live.length > 0) {
                const { run, bytes } = live[step.which % live.length]
                const first = step.part % run.count
                const part = { first: run.first + first, count: run.count - first }
                const into = new Uint8Array(part.count * pageSizeBytes)
                expect(await backup.copyPages([part], [into])).toEqual({ copied: part.count })
                expect(Buffer.compare(into, bytes.subarray(first * pageSizeBytes))).toBe(0)
                if (step.kind === 'drop') {
                  await backup.drop([part])
                  livePages -= part.count
                  dropped.push(part)
                  live.splice(step.which % live.length, 1)
                  if (first > 0) {
                    live.push({
                      run: { first: run.first, count: first },
                      bytes: bytes.subarray(0, first * pageSizeBytes),
                    })
                  }
                }
              }
              expect(backup.stats()).toMatchObject({ livePages, reservedBytes: 0 })
              expect(await backup.bytesAvailable()).toBe((capacityPages - livePages) * pageSizeBytes)
            }
            for (const run of dropped) {
              const copy = backup.copyPages([run], [new Uint8Array(run.count * pageSizeBytes)])
              await expect(copy).rejects.toMatchObject({ code: 'ESTALE' })
            }
          },
        ),
        { numRuns: 25 },
      )
    })
  })
}
