import { describe, it } from 'vitest'
import { type ModelRunOptions, runClosings, runInterleavings } from './steps.ts'
import { Tally } from './tally.ts'
import { VirtualTime } from './virtual-time.ts'

/**
 * Calls that run into each other, in orders that fast-check's scheduler draws. A failure prints its seed, path and schedule;
 * `SPILLWAY_INTERLEAVING_SEED=… SPILLWAY_INTERLEAVING_PATH=…` with those values runs it again.
 */
const seed = Number(process.env['SPILLWAY_INTERLEAVING_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const path = process.env['SPILLWAY_INTERLEAVING_PATH']

describe('interleavings', () => {
  const run = async (property: (options: ModelRunOptions) => Promise<void>, runs: number, steps: number) => {
    const warnings = process.listeners('warning')
    process.removeAllListeners('warning')
    try {
      await property({
        seed,
        path,
        runs,
        stepsPerRun: steps,
        time: new VirtualTime(),
        tally: new Tally(),
        memory: ['resizable', 'own', 'own, whole blocks'],
      })
    } finally {
      for (const listener of warnings) process.on('warning', listener)
    }
  }

  it('I1, I3, I9, I10, I11, T47, T79: calls that meet in any order lose nothing and all end', () =>
    run(runInterleavings, 75, 25))

  it('T19, T49, T50, I2, I3, I4, I5, I9, I12: a close that meets calls in any order ends, and leaves nothing', () =>
    run(runClosings, 120, 4))
})
