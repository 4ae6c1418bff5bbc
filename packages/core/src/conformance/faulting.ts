import assert from 'node:assert/strict'
import type { HandleRun } from '../contract.ts'
import { isSpillwayError } from '../errors.ts'
import { type FaultyBackup, faultyBackup } from '../faults/faulty-backup.ts'
import { type FaultPlan, kernelFaults } from '../faults/plan.ts'
import { firstHandles } from '../runs.ts'
import { History } from './history.ts'
import { countOf, rejectsWith, Subject } from './subject.ts'
import type { Suite } from './suite.ts'

const historySteps = 120

/** Whatever stops a call, every page is in exactly one place, and the next call goes on from there. */
export function faulting({ options, open }: Suite): void {
  const test = (
    name: string,
    plan: FaultPlan,
    body: (subject: Subject, faulty: FaultyBackup) => Promise<void>,
  ): void => {
    options.it(name, async () => {
      const { backup, capacityPages } = await open()
      const faulty = faultyBackup(backup, plan)
      try {
        await body(new Subject(faulty, capacityPages), faulty)
      } finally {
        await faulty.close()
      }
    })
  }

  test('T44: a backup that fails at any page has stored the pages before it', {}, async (subject, faulty) => {
    const whole = subject.pattern(8, 200)
    for (let stop = 0; stop < 8; stop++) {
      faulty.inject({ method: 'backupPages', stop, code: 'EIO', times: 1 })
      const result = await faulty.backupPages(threeSpans(whole, subject.pageSizeBytes))
      assertFailed(result.error, 'EIO')
      assert.equal(countOf(result.handles), stop)
      assert.equal(faulty.stats().livePages, stop)
      const rest = await subject.store(whole.subarray(stop * subject.pageSizeBytes))
      const handles = [...result.handles, ...rest]
      await subject.assertHolds(handles, whole)
      await faulty.drop(handles)
    }
  })

  test(
    'T43, T44: a copy that fails at any page can be repeated, and has lost nothing',
    {},
    async (subject, faulty) => {
      const whole = subject.pattern(8, 201)
      const handles = await subject.store(...threeSpans(whole, subject.pageSizeBytes))
      for (let stop = 0; stop < 8; stop++) {
        faulty.inject({ method: 'copyPages', stop, code: 'EIO', times: 1 })
        const into = subject.dirty(8)
        const result = await faulty.copyPages(handles, [into])
        assertFailed(result.error, 'EIO')
        assert.equal(result.copied, stop)
        const end = stop * subject.pageSizeBytes
        subject.assertBytes(into.subarray(0, end), whole.subarray(0, end))
        await subject.assertHolds(handles, whole)
      }
    },
  )

  test('T4: a drop that fails has dropped nothing', {}, async (subject, faulty) => {
    const bytes = subject.pattern(3, 202)
    const handles = await subject.store(bytes)
    faulty.inject({ method: 'drop', code: 'EIO', times: 1 })
    await rejectsWith('EIO', () => faulty.drop(handles))
    await subject.assertHolds(handles, bytes)
    await faulty.drop(handles)
    assert.equal(faulty.stats().livePages, 0)
  })

  test(
    'T44: with the kernel’s own faults everything gets through in the end',
    kernelFaults,
    async (subject, faulty) => {
      const whole = subject.pattern(13, 203)
      const handles: HandleRun[] = []
      for (let calls = 0; countOf(handles) < 13; calls++) {
        assert.ok(calls < 5, 'half of the rest, rounded up, is stored by each call')
        const result = await faulty.backupPages([whole.subarray(countOf(handles) * subject.pageSizeBytes)])
        handles.push(...result.handles)
      }
      const { signal } = new AbortController()
      const into = [subject.dirty(13)]
      assert.equal((await faulty.copyPages(handles, into, { signal })).copied, 13)
      assertFailed((await faulty.copyPages(handles, into, { signal })).error, 'EINTR')
      await subject.assertHolds(handles, whole)
      await subject.assertHolds(handles, whole, 'a copy without a signal is not interrupted: page')
    },
  )

  test(
    'T8, T11: no memory after the first page of a chunk leaves that page stored',
    {},
    async (subject, faulty) => {
      const bytes = subject.pattern(8, 204)
      for (const [stop, stored] of [
        ['first of chunk', 1],
        ['half of chunk', 4],
      ] as const) {
        faulty.inject({ method: 'backupPages', stop, code: 'ENOMEM', times: 1 })
        const result = await faulty.backupPages([bytes])
        assertFailed(result.error, 'ENOMEM')
        assert.equal(countOf(result.handles), stored)
        await subject.assertHolds(result.handles, bytes.subarray(0, stored * subject.pageSizeBytes))
        await subject.assertHolds(firstHandles(result.handles, 1), bytes.subarray(0, subject.pageSizeBytes))
      }
    },
  )

  for (let number = 0; number < 3; number++) {
    options.it(
      `T47: loses and mixes up nothing in random history ${number + 1}, with faults and aborts`,
      async () => {
        const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32)
        const { backup, capacityPages } = await open()
        const faulty = faultyBackup(backup, { seed, random: { rate: 0.25 } })
        try {
          const history = new History(new Subject(faulty, capacityPages), seed)
          for (let step = 0; step < historySteps; step++) await history.step()
          faulty.heal()
          await history.finish()
        } catch (cause) {
          throw new Error(`${(cause as Error).message}; replay it with the option seed: ${seed}`, { cause })
        } finally {
          await faulty.close()
        }
      },
    )
  }
}

function threeSpans(whole: Uint8Array, pageSizeBytes: number): Uint8Array[] {
  return [
    whole.subarray(0, 3 * pageSizeBytes),
    whole.subarray(3 * pageSizeBytes, 4 * pageSizeBytes),
    whole.subarray(4 * pageSizeBytes),
  ]
}

function assertFailed(error: Error | undefined, code: string): void {
  assert.ok(isSpillwayError(error), `expected ${code}, got ${String(error)}`)
  assert.equal(error.code, code)
}
