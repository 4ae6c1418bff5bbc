import { describe, it } from 'vitest'
import { runModel } from './steps.ts'
import { Tally } from './tally.ts'
import { VirtualTime } from './virtual-time.ts'
import { memories, memoryWorks } from './world.ts'

/**
 * Random histories against plain arrays of bytes, everything checked after every step. A failure prints its seed, path and
 * history; `SPILLWAY_MODEL_SEED=… SPILLWAY_MODEL_PATH=… SPILLWAY_MODEL_REPLAY=…` with those values runs it again, and
 * `node scripts/long/model.ts` runs as many steps as one likes.
 */
const seed = Number(process.env['SPILLWAY_MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const path = process.env['SPILLWAY_MODEL_PATH']
const replayPath = process.env['SPILLWAY_MODEL_REPLAY']

// In its name, so that a run that is cut off has told it, too.
describe(`the model of the pool (seed ${seed})`, () => {
  it('I1, I2, I3, I4, I5, I6, I7, I9, I10, I11, I12: no history loses a byte, a page, a handle or a gauge', async () => {
    const memory = (await memoryWorks('mmap')) ? memories : memories.filter((name) => name !== 'mmap')
    const tally = new Tally()
    const time = new VirtualTime()
    const warnings = process.listeners('warning')
    // A backup that fails and a buffer that is forgotten are part of the game.
    process.removeAllListeners('warning')
    try {
      for (let batch = 0; batch < (path === undefined ? 2 : 1); batch++) {
        await runModel({
          seed: seed + batch,
          runs: 40,
          stepsPerRun: 200,
          time,
          tally,
          memory,
          path,
          replayPath,
        })
      }
    } finally {
      for (const listener of warnings) process.on('warning', listener)
    }
  })
})
