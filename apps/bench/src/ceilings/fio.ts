import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { affordableOrder, type CeilingOrder } from './measure.ts'

const run = promisify(execFile)

const sequentialEngines = ['psync', 'libaio', 'io_uring'] as const
const randomDepths = [4, 32] as const
const randomBytes = 16 * 1024 * 1024

interface FioReport {
  readonly jobs: readonly {
    readonly jobname: string
    readonly error: number
    readonly read: { readonly bw_bytes: number; readonly iops: number }
    readonly write: { readonly bw_bytes: number; readonly iops: number }
  }[]
}

/**
 * What fio reaches on the same disk with the same sizes, direct: sequential writes and reads with three engines, random
 * reads of 4 KiB with io_uring. psync has no depth, so it gets as many threads as the others have requests in flight.
 */
export async function measureFio(
  order: CeilingOrder,
  allowedMs: number,
  notes: string[],
): Promise<Record<string, number[]>> {
  try {
    await run('fio', ['--version'])
  } catch {
    notes.push('fio is not installed: the file figures are held against node:fs alone')
    return {}
  }
  const path = join(order.directory, `fio-${process.pid}.bin`)
  const figures: Record<string, number[]> = {}
  try {
    const startMs = performance.now()
    const working = await workingJobs(plannedJobs(order, path), notes)
    const tookMs = performance.now() - startMs
    const measured = affordableOrder(order, allowedMs - tookMs, tookMs, notes, 'fio')
    const jobs = plannedJobs(measured, path).filter(({ name }) => working.some((each) => each.name === name))
    for (const { name } of jobs) figures[name] = []
    for (let round = 0; round < order.rounds && jobs.length > 0; round++) {
      for (const [name, figure] of await runJobs(jobs)) figures[name].push(figure)
    }
  } finally {
    await rm(path, { force: true })
  }
  noteBest(figures, 'fioBestWrite', 'Write')
  noteBest(figures, 'fioBestRead', 'Read')
  return figures
}

interface Job {
  readonly name: string
  readonly arguments: readonly string[]
  readonly figure: (job: FioReport['jobs'][number]) => number
}

function plannedJobs(order: CeilingOrder, path: string): Job[] {
  const sequential = sequentialEngines.flatMap((engine) =>
    (['write', 'read'] as const).map((direction) => ({
      name: `fio${engineTitle(engine)}${direction === 'write' ? 'Write' : 'Read'}`,
      arguments: sequentialJob(order, path, engine, direction),
      figure: (job: FioReport['jobs'][number]) => job[direction].bw_bytes,
    })),
  )
  const random = randomDepths.map((depth) => ({
    name: `fioRandom4KiBDepth${depth}`,
    arguments: randomJob(order, path, depth),
    figure: (job: FioReport['jobs'][number]) => job.read.iops,
  }))
  return [...sequential, ...random]
}

/** The warm-up round: all at once, and only if that fails one by one, to find out which does not work here. */
async function workingJobs(jobs: readonly Job[], notes: string[]): Promise<readonly Job[]> {
  try {
    await runJobs(jobs)
    return jobs
  } catch {
    const working: Job[] = []
    for (const job of jobs) {
      try {
        await runJobs([job])
        working.push(job)
      } catch (failure) {
        notes.push(`${job.name} was not measured: ${(failure as Error).message.split('\n')[0]}`)
      }
    }
    return working
  }
}

/** Runs the jobs one after the other in one fio, which is quicker than one fio each. */
async function runJobs(jobs: readonly Job[]): Promise<[string, number][]> {
  const asked = jobs.flatMap((job) => [`--name=${job.name}`, '--stonewall', '--new_group', ...job.arguments])
  const { stdout } = await run('fio', ['--output-format=json', ...asked])
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport
  return jobs.map((job) => {
    const result = report.jobs.find((each) => each.jobname === job.name)
    if (result === undefined || result.error !== 0)
      throw new Error(`error ${result?.error ?? 'without a result'}`)
    return [job.name, job.figure(result)]
  })
}

function sequentialJob(order: CeilingOrder, path: string, engine: string, direction: string): string[] {
  const { setBytes, requestBytes, depth } = order
  const common = [
    `--filename=${path}`,
    `--ioengine=${engine}`,
    '--direct=1',
    `--rw=${direction}`,
    `--bs=${requestBytes}`,
    '--fallocate=none',
    '--thread',
    '--group_reporting',
  ]
  if (engine !== 'psync') return [...common, `--size=${setBytes}`, `--iodepth=${depth}`]
  const share = Math.max(requestBytes, Math.floor(setBytes / depth / requestBytes) * requestBytes)
  return [...common, `--size=${share}`, `--numjobs=${depth}`, `--offset_increment=${share}`]
}

function randomJob({ setBytes }: CeilingOrder, path: string, depth: number): string[] {
  return [
    `--filename=${path}`,
    '--ioengine=io_uring',
    '--direct=1',
    '--rw=randread',
    '--bs=4096',
    '--norandommap',
    '--thread',
    `--size=${setBytes}`,
    `--io_size=${Math.min(setBytes / 8, randomBytes)}`,
    `--iodepth=${depth}`,
  ]
}

function engineTitle(engine: (typeof sequentialEngines)[number]): string {
  return { psync: 'Psync', libaio: 'Libaio', io_uring: 'IoUring' }[engine]
}

/** Copies the engine with the best median: it is the ceiling. */
function noteBest(figures: Record<string, number[]>, name: string, ending: 'Write' | 'Read'): void {
  const middle = (values: number[]) => [...values].sort((left, right) => left - right)[values.length >> 1]
  let best: number[] | undefined
  for (const engine of sequentialEngines) {
    const values = figures[`fio${engineTitle(engine)}${ending}`]
    if (values?.length && (best === undefined || middle(values) > middle(best))) best = values
  }
  if (best !== undefined) figures[name] = best
}
