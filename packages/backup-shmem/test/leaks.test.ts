import { readdirSync, readlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { attachShmemBackup, openShmemBackup } from '../src/index.ts'
import { uniqueName } from './media.ts'

const capacityBytes = 2 ** 22

/** The warnings about leaked backups that name `label`, as soon as there are any. */
async function leakWarnings(label: string, work: () => Promise<void>): Promise<string[]> {
  const messages: string[] = []
  const listen = (warning: Error & { code?: string }) => {
    const isMeant = warning.code === 'SPILLWAY_LEAKED_BACKUP' && warning.message.includes(label)
    if (isMeant) messages.push(warning.message)
  }
  process.on('warning', listen)
  try {
    await work()
    for (let round = 0; round < 500 && messages.length === 0; round++) {
      globalThis.gc!()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  } finally {
    process.off('warning', listen)
  }
  return messages
}

function openMemfds(name: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes(`memfd:spillway-${name}`)
    } catch {
      return false
    }
  }).length
}

describe('backups that are collected without close', () => {
  it('give back their descriptors, and make one warning with a count and the first names', async () => {
    const name = uniqueName()
    const messages = await leakWarnings(name, async () => {
      const opened = []
      for (let index = 0; index < 8; index++) {
        const backup = await openShmemBackup({ capacityBytes, name: `${name}-${index}` })
        await backup.backupPages([new Uint8Array(4096)])
        opened.push(backup)
      }
      expect(openMemfds(name)).toBe(8)
      expect(opened[7].stats().livePages).toBe(1)
    })
    expect(messages[0]).toMatch(/^(\d+ backups were|a backup was) never closed: spillway-test-/)
    expect(openMemfds(name)).toBeLessThan(8)
  })

  it('leave no shared name, and attached ones are told of as well', async () => {
    const name = uniqueName()
    const messages = await leakWarnings(name, async () => {
      await using _owner = await openShmemBackup({ capacityBytes, shared: { name } })
      await attachShmemBackup({ name })
    })
    expect(messages).toHaveLength(1)
    await expect(attachShmemBackup({ name })).rejects.toMatchObject({ code: 'ENOENT' })
  })
})

describe('in a worker thread', () => {
  it('a backup closes without a warning, and a terminated worker leaves no memfd', async () => {
    const name = uniqueName()
    const program = `
      import { parentPort } from 'node:worker_threads'
      import { openShmemBackup } from ${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)}
      const warnings = []
      process.on('warning', (warning) => warnings.push(warning.message))
      const backup = await openShmemBackup({ capacityBytes: 2 ** 22 })
      await backup.backupPages([new Uint8Array(4096)])
      const { medium } = backup.stats()
      await backup.close()
      await new Promise((resolve) => setImmediate(resolve))
      globalThis.left = await openShmemBackup({ capacityBytes: 2 ** 22, name: ${JSON.stringify(name)} })
      parentPort.postMessage({ medium, warnings })
      setInterval(() => {}, 1000)`
    const sources = fileURLToPath(new URL('../../../scripts/resolve-sources.ts', import.meta.url))
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
      execArgv: ['--disable-warning=ExperimentalWarning', '--import', sources],
    })
    const answer = await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    expect(answer).toEqual({ medium: 'memfd', warnings: [] })
    expect(openMemfds(name)).toBe(1)
    await worker.terminate()
    expect(openMemfds(name)).toBe(0)
  })
})
