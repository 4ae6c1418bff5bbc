import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openFileBackup } from '../src/index.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'spillway-leaks-'))
})
afterEach(() => {
  rmSync(directory, { recursive: true })
})

const descriptors = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(directory)
    } catch {
      return false
    }
  }).length

/** Collects garbage until the condition holds, for 5 s at most. */
async function collectUntil(condition: () => boolean): Promise<void> {
  for (let round = 0; round < 500 && !condition(); round++) {
    globalThis.gc!()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('file backups that are collected without close', () => {
  for (const io of ['auto', 'threads'] as const) {
    it(`give back their descriptors and their names, and the process is warned: ${io}`, async () => {
      const messages: string[] = []
      const listen = ({ code, message }: Error & { code?: string }) => {
        if (code === 'SPILLWAY_LEAKED_BACKUP') messages.push(message)
      }
      process.on('warning', listen)
      try {
        await (async () => {
          const page = new Uint8Array(4096)
          for (let index = 0; index < 8; index++) {
            const backup = await openFileBackup({ directory, io, name: `left ${index}` })
            await backup.backupPages([page])
          }
          await (await openFileBackup({ path: join(directory, 'named'), io })).backupPages([page])
        })()
        expect(descriptors()).toBeGreaterThanOrEqual(9)
        await collectUntil(
          () => descriptors() < 4 && messages.length > 0 && !existsSync(join(directory, 'named')),
        )
      } finally {
        process.off('warning', listen)
      }
      expect(messages[0]).toMatch(/^(\d+ backups were|a backup was) never closed: /)
      // What was used last may be on the stack still.
      expect(descriptors()).toBeLessThan(4)
    })
  }

  it('are not told of when they were closed', async () => {
    const messages: string[] = []
    const listen = ({ message }: Error) => messages.push(message)
    process.on('warning', listen)
    await (async () => {
      for (let index = 0; index < 4; index++) await (await openFileBackup({ directory })).close()
    })()
    for (let round = 0; round < 20; round++) {
      globalThis.gc!()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    process.off('warning', listen)
    expect(messages).toEqual([])
  })
})
