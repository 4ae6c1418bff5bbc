import { describe, it } from 'vitest'
import { runInterleavings } from './steps.ts'
import { Tally } from './tally.ts'
import { VirtualTime } from './virtual-time.ts'

/**
 * Calls that run into each other, in orders that fast-check's scheduler draws. A failure prints its seed, path and schedule;
 * `SPILLWAY_INTERLEAVING_SEED=… SPILLWAY_INTERLEAVING_PATH=…` with those values runs it again.
 */
const seed = Number(process.env['SPILLWAY_INTERLEAVING_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const path = process.env['SPILLWAY_INTERLEAVING_PATH']

describe('interleavings', () => {
  it('I1, I3, I9, I10, I11, T47, T79: calls that meet in any order lose nothing and all end', async () => {
    const warnings = process.listeners('warning')
    process.removeAllListeners('warning')
    try {
      await runInterleavings({
        seed,
        path,
        runs: 150,
        stepsPerRun: 25,
        time: new VirtualTime(),
        tally: new Tally(),
        memory: ['resizable', 'own', 'own, whole blocks'],
      })
    } finally {
      for (const listener of warnings) process.on('warning', listener)
    }
  })
})
