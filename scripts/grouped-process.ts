import { spawn } from 'node:child_process'
import { type MemoryGroup, openMemoryGroup } from '../apps/bench/src/case/memory-group.ts'

/**
 * Starts a program in a memory control group of its own, so that the pages of files that it reads and writes count for it: it may take so
 * many bytes. Where there is no group, says why and starts it without. The caller disposes of the group when the program has ended.
 */
export function spawnInGroup(command: readonly string[], groupBytes: number) {
  const opened = openMemoryGroup(false)
  const group: MemoryGroup | undefined = 'reason' in opened ? undefined : opened
  if ('reason' in opened) console.error(`without a limit on memory: ${opened.reason}`)
  // Nothing is charged to the group before the process is in it, so it waits for a line first.
  const child = spawn('sh', ['-c', 'read line && exec "$@"', 'sh', ...command], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  group?.allow(groupBytes)
  group?.add(child.pid!)
  child.stdin.end('go\n')
  return { child, group }
}
