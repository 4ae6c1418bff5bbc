import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'vitest'

export const mebibyte = 2 ** 20

/** Runs a program and returns what it printed. */
export function run(program: string, ...argv: string[]): string {
  return execFileSync(program, argv, { encoding: 'utf8', stdio: 'pipe' }).trim()
}

/** What a test says that cannot run here, in the words that CI looks for. */
function leaveOut(context: TestContext, failure: unknown): never {
  const why = `needs root, loop devices and the programs of the file system: ${(failure as Error).message}`
  process.stdout.write(`left out: ${context.task.name}: ${why}\n`)
  return context.skip(why)
}

/** `work(directory)` on a fresh file system in a loop device, gone afterwards; the test is left out, in words, where that cannot be had. */
export async function onFileSystem(
  context: TestContext,
  options: { readonly mkfs: string; readonly mebibytes: number; readonly mount?: string },
  work: (directory: string) => Promise<void>,
): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'spillway-loop-'))
  const image = join(scratch, 'image')
  const directory = join(scratch, 'mounted')
  mkdirSync(directory)
  writeFileSync(image, '')
  truncateSync(image, options.mebibytes * mebibyte)
  try {
    const [program, ...argv] = options.mkfs.split(' ')
    run(program, ...argv, '-q', image)
    run('mount', '-o', options.mount ?? 'loop', image, directory)
  } catch (failure) {
    rmSync(scratch, { recursive: true, force: true })
    leaveOut(context, failure)
  }
  try {
    await work(directory)
  } finally {
    run('umount', '-l', directory)
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** `work(device, image)` with a block device over a file; left out, in words, where that cannot be had. */
export async function onBlockDevice(
  context: TestContext,
  options: { readonly blockBytes: number; readonly mebibytes: number },
  work: (device: string, image: string) => Promise<void>,
): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'spillway-loop-'))
  const image = join(scratch, 'image')
  writeFileSync(image, '')
  truncateSync(image, options.mebibytes * mebibyte)
  let device: string
  try {
    device = run('losetup', '--find', '--show', '--sector-size', String(options.blockBytes), image)
  } catch (failure) {
    rmSync(scratch, { recursive: true, force: true })
    leaveOut(context, failure)
  }
  try {
    await work(device, image)
  } finally {
    run('losetup', '--detach', device)
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Bytes that the file system has free, after all was written. */
export function freeBytes(directory: string): number {
  run('sync', '-f', directory)
  const { bavail, bsize } = statfsSync(directory)
  return bavail * bsize
}
