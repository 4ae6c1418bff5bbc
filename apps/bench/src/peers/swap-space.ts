import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const zramControl = '/sys/class/zram-control'

/** Gives the system swap space until it is disposed of. Throws what prevents it: it takes Linux and root. */
export function openSwapSpace(kind: 'file' | 'zram', sizeBytes: number, directory: string): Disposable {
  if (process.platform !== 'linux') throw new Error('it takes Linux')
  if (process.getuid?.() !== 0) throw new Error('it takes root')
  return kind === 'file' ? openSwapFile(sizeBytes, join(directory, 'swap')) : openZram(sizeBytes)
}

function openSwapFile(sizeBytes: number, path: string): Disposable {
  try {
    call('fallocate', '--length', String(sizeBytes), path)
    call('chmod', '600', path)
    return swapOn(path, () => rmSync(path, { force: true }))
  } catch (failure) {
    rmSync(path, { force: true })
    throw failure
  }
}

function openZram(sizeBytes: number): Disposable {
  if (!existsSync(zramControl)) throw new Error('this kernel has no zram')
  const number = readFileSync(join(zramControl, 'hot_add'), 'utf8').trim()
  const remove = () => {
    writeFileSync(`/sys/block/zram${number}/reset`, '1')
    writeFileSync(join(zramControl, 'hot_remove'), number)
  }
  try {
    writeFileSync(`/sys/block/zram${number}/disksize`, String(sizeBytes))
    return swapOn(`/dev/zram${number}`, remove)
  } catch (failure) {
    remove()
    throw failure
  }
}

function swapOn(path: string, remove: () => void): Disposable {
  call('mkswap', path)
  // Before any other swap space of the system.
  call('swapon', '--priority', '32767', path)
  return {
    [Symbol.dispose]() {
      call('swapoff', path)
      remove()
    },
  }
}

function call(program: string, ...given: string[]): void {
  try {
    execFileSync(program, given, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
    })
  } catch (failure) {
    const { stderr, message } = failure as Error & { stderr?: Buffer }
    throw new Error(stderr?.toString().trim().split('\n')[0] || message)
  }
}
