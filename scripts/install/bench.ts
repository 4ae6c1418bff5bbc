import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Runtime } from '../runtimes/installed.ts'

const run = promisify(execFile)
const module = './my-backup.mjs'

/** What the README of the bench tells somebody to do who has a backend. */
export interface BenchSteps {
  readonly names: readonly string[]
  readonly source: string
}

/** Throws when the README does not say it any more. */
export function benchSteps(readme: string): BenchSteps {
  const [, names] = /^npm install (@spillway\/bench .+)$/m.exec(readme) ?? []
  const [, source] = /^```js\n(\/\/ my-backup\.mjs\n[\s\S]*?)^```$/m.exec(readme) ?? []
  if (names === undefined || source === undefined)
    throw new Error('the README of the bench has no backend of your own')
  return { names: names.split(' '), source }
}

/** Tries the demands on the backend of the README; the last line of what the bench says of it. */
export async function conformBackend(folder: string, runtime: Runtime, source: string): Promise<string> {
  writeFileSync(join(folder, module), source)
  const said = await bench(folder, runtime, ['conform', module])
  return said.split('\n').at(-1)!
}

/** Measures it beside two others; how many cases there were. */
export async function measureBackend(folder: string, runtime: Runtime): Promise<string> {
  const small = ['--quick', '--no-ceilings', '--budget', '20', '--workload', 'random']
  await bench(folder, runtime, ['run', ...small, '--backend', 'shmem,file', '--backend', module])
  const result = readFileSync(join(folder, 'bench-results/run.json'), 'utf8')
  const page = readFileSync(join(folder, 'bench-results/run.html'), 'utf8')
  const { cases } = JSON.parse(result) as { readonly cases: readonly { readonly backend: string }[] }
  const names = cases.map(({ backend }) => backend).join(' ')
  if (names !== 'shmem file lmdb') throw new Error(`measured were ${names}`)
  if (!page.includes('Every byte came back'))
    throw new Error('the report does not say that every byte came back')
  return `measured ${names}, report of ${Math.ceil(page.length / 1000)} kB`
}

/** Runs the command as `npx` does; what it printed, or an error with all that it said. */
async function bench(folder: string, runtime: Runtime, args: readonly string[]): Promise<string> {
  const [program, ...before] = runtime.command
  const command = join(folder, 'node_modules/@spillway/bench/bin/spillway-bench.js')
  const env = { ...process.env, NO_COLOR: '1' }
  const { stdout } = await run(program!, [...before, command, ...args], {
    cwd: folder,
    env,
    timeout: 240_000,
  })
  return stdout.trim()
}
