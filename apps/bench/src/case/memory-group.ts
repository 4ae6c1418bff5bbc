import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * A memory control group for processes of one case, so that the page cache that a program fills counts for it as its own
 * memory does. Without one, a peer that writes through the page cache is not under any limit at all.
 */
export interface MemoryGroup extends Disposable {
  add(processId: number): void
}

/** Makes a group below our own, or says why not: it takes privileges that one usually has only in a container of one's own. */
export function openMemoryGroup(limitBytes: number): MemoryGroup | { readonly reason: string } {
  try {
    const groups = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n')
    const first = groups.map((line) => line.split(':')).find(([, controllers]) => controllers === 'memory')
    const unified = groups.map((line) => line.split(':')).find(([, controllers]) => controllers === '')
    const name = `spillway-bench-${process.pid}-${Date.now().toString(36)}`
    if (first !== undefined) {
      return makeGroup(join('/sys/fs/cgroup/memory', first[2], name), 'memory.limit_in_bytes', limitBytes)
    }
    if (unified === undefined) return { reason: 'this system has no control groups' }
    // A group with processes of its own cannot have children with a limit: ours is beside us.
    return makeGroup(join('/sys/fs/cgroup', unified[2], '..', name), 'memory.max', limitBytes)
  } catch (failure) {
    return { reason: failure instanceof Error ? failure.message : String(failure) }
  }
}

function makeGroup(directory: string, limitFile: string, limitBytes: number): MemoryGroup {
  mkdirSync(directory)
  try {
    if (!existsSync(join(directory, limitFile))) throw new Error('the memory controller is not available')
    writeFileSync(join(directory, limitFile), String(limitBytes))
  } catch (failure) {
    rmdirSync(directory)
    throw failure
  }
  return {
    add: (processId) => writeFileSync(join(directory, 'cgroup.procs'), String(processId)),
    [Symbol.dispose]() {
      try {
        rmdirSync(directory)
      } catch {
        // Its process is not quite gone; an empty group costs nothing.
      }
    },
  }
}
