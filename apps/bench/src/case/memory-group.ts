import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * What a group allows above the limit and what its process held before: heap, garbage, file pages. With 96 MiB the system kills four of
 * seven peers on whole buffers, whose garbage V8 leaves lying as long as the machine has memory.
 */
export const processAllowanceBytes = 256 * 2 ** 20

/**
 * A memory control group for the process of one case, so that the page cache that a program fills counts for it as its own
 * memory does. Without one, a peer that writes through the page cache is not under any limit at all.
 */
export interface MemoryGroup extends Disposable {
  add(processId: number): void
  /** Whether the system has killed its process, because it needed more. */
  wasExceeded(): boolean
  /** From now on the group may have so much more than the memory that its process holds now; file pages that it has read do not count. */
  allow(moreBytes: number): void
}

/**
 * Makes a group beside or below our own, without a limit yet, or says why not: it takes privileges that one usually has only in a
 * container of one's own. `swaps`: whether its memory may be swapped out.
 */
export function openMemoryGroup(swaps: boolean): MemoryGroup | { readonly reason: string } {
  try {
    const groups = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n')
    const first = groups.map((line) => line.split(':')).find(([, controllers]) => controllers === 'memory')
    const unified = groups.map((line) => line.split(':')).find(([, controllers]) => controllers === '')
    const name = `spillway-bench-${process.pid}-${(count++).toString(36)}-${Date.now().toString(36)}`
    if (first !== undefined) {
      const group = makeGroup(join('/sys/fs/cgroup/memory', first[2], name), versionOne)
      if (!swaps) writeFileSync(join(group.directory, 'memory.swappiness'), '0')
      return group
    }
    if (unified === undefined) return { reason: 'this system has no control groups' }
    // A group with processes of its own cannot have children with a limit: ours is beside us.
    const group = makeGroup(join('/sys/fs/cgroup', unified[2], '..', name), versionTwo)
    const swapLimit = join(group.directory, 'memory.swap.max')
    if (!swaps && existsSync(swapLimit)) writeFileSync(swapLimit, '0')
    return group
  } catch (failure) {
    return { reason: failure instanceof Error ? failure.message : String(failure) }
  }
}

let count = 0

/** Names of files and fields in the two versions of control groups. */
const versionOne = {
  limit: 'memory.limit_in_bytes',
  held: /^total_rss (\d+)$/m,
  events: 'memory.oom_control',
}
const versionTwo = { limit: 'memory.max', held: /^anon (\d+)$/m, events: 'memory.events' }

function makeGroup(
  directory: string,
  { limit, held, events }: typeof versionOne,
): MemoryGroup & { readonly directory: string } {
  mkdirSync(directory)
  if (!existsSync(join(directory, limit))) {
    rmdirSync(directory)
    throw new Error('the memory controller is not available')
  }
  return {
    directory,
    add: (processId) => writeFileSync(join(directory, 'cgroup.procs'), String(processId)),
    wasExceeded: () => /^oom_kill [1-9]/m.test(readFileSync(join(directory, events), 'utf8')),
    allow(moreBytes) {
      const [, heldBytes] = held.exec(readFileSync(join(directory, 'memory.stat'), 'utf8')) ?? []
      writeFileSync(join(directory, limit), String(Number(heldBytes ?? 0) + moreBytes))
    },
    [Symbol.dispose]() {
      // Where its process is not quite gone, it goes when ours ends.
      if (!removed(directory)) process.once('exit', () => removed(directory))
    },
  }
}

/** Whether a group could be removed, which only an empty one can. */
function removed(directory: string): boolean {
  try {
    rmdirSync(directory)
    return true
  } catch {
    return false
  }
}
