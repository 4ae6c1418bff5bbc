/**
 * Group-by over a CSV file that it makes, beside node:sqlite, in turn, each in a process and a memory control group of its own.
 *
 *   node examples/group-by/measure/main.ts [--gib 0.5] [--rounds 3] [--group-mib 512] [--directory /var/tmp]
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { spawnInGroup } from '../../../scripts/grouped-process.ts'
import { type Outcome, programs } from './programs.ts'

const { values: options } = parseArgs({
  options: {
    gib: { type: 'string', default: '0.5' },
    rounds: { type: 'string', default: '3' },
    'group-mib': { type: 'string', default: '512' },
    directory: { type: 'string', default: '/var/tmp' },
  },
})

/** Runs a script of this folder in a group of its own, so that the pages of its files count for it; resolves to what it prints. */
async function runInGroup(script: string, ...args: string[]): Promise<string> {
  const command = [process.execPath, join(import.meta.dirname, script), ...args]
  const { child, group } = spawnInGroup(command, Number(options['group-mib']) * 2 ** 20)
  try {
    const output = (await child.stdout.toArray()).join('')
    if (output === '' && group?.wasExceeded()) throw new Error(`${args[0]} was killed: it needed more memory`)
    return output
  } finally {
    group?.[Symbol.dispose]()
  }
}

const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)]

const directory = mkdtempSync(join(options.directory, 'group-by-'))
try {
  const path = join(directory, 'sales.csv')
  await runInGroup('make-csv.ts', path, String(Number(options.gib) * 2 ** 30))
  const ratios: { time: number; cpuTime: number }[] = []
  for (let round = 0; round < Number(options.rounds); round++) {
    const outcomes: Record<string, Outcome> = {}
    for (const name of Object.keys(programs)) {
      outcomes[name] = JSON.parse(await runInGroup('programs.ts', name, path))
      rmSync(join(directory, 'sales.sqlite'), { force: true })
      const { seconds, cpuSeconds, peakResidentBytes } = outcomes[name]
      const peak = `${Math.round(peakResidentBytes / 2 ** 20)} MiB at most`
      console.log(`${name}: ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of CPU time, ${peak}`)
    }
    const { spillway: ours, 'node:sqlite': theirs } = outcomes
    for (const what of ['groups', 'rows', 'checksum'] as const) {
      if (ours[what] !== theirs[what]) throw new Error(`${what}: ${ours[what]} and ${theirs[what]}`)
    }
    ratios.push({
      time: theirs.seconds / ours.seconds,
      cpuTime: theirs.cpuSeconds / ours.cpuSeconds,
    })
    console.log(`${ours.rows} rows, ${ours.groups} groups, the same of both`)
  }
  const time = median(ratios.map((ratio) => ratio.time)).toFixed(2)
  const cpuTime = median(ratios.map((ratio) => ratio.cpuTime)).toFixed(2)
  console.log(`relative to node:sqlite: throughput ${time}, per CPU time ${cpuTime}`)
} finally {
  rmSync(directory, { recursive: true })
}
