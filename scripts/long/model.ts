import { parseArgs } from 'node:util'
import '../resolve-sources.ts'

/**
 * The model of the pool for as long as one likes: `node scripts/long/model.ts --steps 1000000 --seed 1`.
 * Runs the sources, nothing has to be built. A failure prints the history and how to replay it.
 */
const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '1000000' },
    seed: { type: 'string' },
    path: { type: 'string' },
    'replay-path': { type: 'string' },
  },
})
const { Tally } = await import('../../packages/pool/test/model/tally.ts')
const { VirtualTime } = await import('../../packages/pool/test/model/virtual-time.ts')
const { runModel } = await import('../../packages/pool/test/model/steps.ts')
const { memories, memoryWorks } = await import('../../packages/pool/test/model/world.ts')

// A backup that fails and a buffer that is forgotten are part of the game.
process.removeAllListeners('warning')

const wanted = Number(values.steps)
const firstSeed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
const memory = (await memoryWorks('mmap')) ? memories : memories.filter((name) => name !== 'mmap')
const tally = new Tally()
const started = Date.now()
const { user, system } = process.cpuUsage()
let seed = firstSeed
let nextReport = 0
console.log(`model of the pool: ${wanted} steps from seed ${firstSeed}, memory ${memory.join(' | ')}`)
do {
  await runModel({
    seed,
    runs: 50,
    stepsPerRun: 200,
    time: new VirtualTime(),
    tally,
    memory,
    path: values.path,
    replayPath: values['replay-path'],
  })
  seed++
  if (tally.steps >= nextReport) {
    console.log(`${tally.steps} steps, ${seconds(Date.now() - started)}, next seed ${seed}`)
    nextReport += Math.ceil(wanted / 10)
  }
} while (tally.steps < wanted && values.path === undefined)
const used = process.cpuUsage({ user, system })
console.log(`no failure in seeds ${firstSeed} to ${seed - 1}`)
console.log(String(tally))
console.log(
  `time     ${seconds(Date.now() - started)}, processor ${seconds((used.user + used.system) / 1000)}, resident ${Math.round(process.memoryUsage.rss() / 1024 ** 2)} MiB`,
)

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
