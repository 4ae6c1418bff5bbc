import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { CeilingOrder } from './measure.ts'

const run = promisify(execFile)

const sequentialEngines = ['psync', 'libaio', 'io_uring'] as const
const randomDepths = [4, 32] as const
const randomBytes = 64 * 1024 * 1024

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
export async function measureFio(order: CeilingOrder, notes: string[]): Promise<Record<string, number[]>> {
  try {
    await run('fio', ['--version'])
  } catch {
    notes.push('fio is not installed: the file figures are held against node:fs alone')
    return {}
  }
  const path = join(order.directory, `fio-${process.pid}.bin`)
  const figures: Record<string, number[]> = {}
  try {
    for (let round = 0; round <= order.rounds; round++) {
      for (const engine of sequentialEngines) {
        for (const direction of ['write', 'read'] as const) {
          const name = `fio${engineTitle(engine)}${direction === 'write' ? 'Write' : 'Read'}`
          await measure(figures, notes, round, name, sequentialJob(order, path, engine, direction), direction)
        }
      }
      for (const depth of randomDepths) {
        await measure(
          figures,
          notes,
          round,
          `fioRandom4KiBDepth${depth}`,
          randomJob(order, path, depth),
          'iops',
        )
      }
    }
  } finally {
    await rm(path, { force: true })
  }
  noteBest(figures, 'fioBestWrite', 'Write')
  noteBest(figures, 'fioBestRead', 'Read')
  return figures
}

async function measure(
  figures: Record<string, number[]>,
  notes: string[],
  round: number,
  name: string,
  job: readonly string[],
  wanted: 'write' | 'read' | 'iops',
): Promise<void> {
  // An engine that failed in the warm-up round is not asked again.
  if (round > 0 && figures[name] === undefined) return
  try {
    const { stdout } = await run('fio', [`--name=${name}`, ...job, '--output-format=json'])
    const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport
    const figure = report.jobs[0]
    if (figure.error !== 0) throw new Error(`error ${figure.error}`)
    figures[name] ??= []
    if (round > 0) {
      figures[name].push(wanted === 'iops' ? figure.read.iops : figure[wanted].bw_bytes)
    }
  } catch (failure) {
    notes.push(`${name} was not measured: ${(failure as Error).message.split('\n')[0]}`)
    delete figures[name]
  }
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
    `--io_size=${Math.min(setBytes, randomBytes)}`,
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
