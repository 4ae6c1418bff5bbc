import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { checkBackend, chooseBackend } from '../src/backends.ts'

let directory = ''
const core = JSON.stringify(new URL('../../../packages/core/src/index.ts', import.meta.url).href)

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'bench-module-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function module(name: string, source: string): string {
  const path = join(directory, `${name}.mjs`)
  writeFileSync(path, `import { memoryBackup } from ${core}\n${source}\n`)
  return path
}

function open(spec: string, pageSizeBytes = 4096) {
  const { description, settings } = chooseBackend(spec)
  const own = join(directory, 'own')
  mkdirSync(own, { recursive: true })
  return description.open({
    ...{ capacityBytes: 2 ** 20, pageSizeBytes, directory: own, io: 'auto', checksums: true, warmBytes: 0 },
    ...settings,
  })
}

it('opens what a module makes, with the settings of its variants and a directory of its own', async () => {
  const path = module(
    'good',
    `export const title = 'mine'
    export const variants = { named: { name: 'odd' } }
    export const open = ({ capacityBytes, pageSizeBytes, name = 'plain' }) => memoryBackup({ capacityBytes, pageSizeBytes, name })`,
  )
  await using plain = await open(path)
  expect(plain.name).toBe('plain')
  await using named = await open(`${path}:named`)
  expect(named.name).toBe('odd')
  expect(readdirSync(join(directory, 'own'))).toHaveLength(2)
  expect((await checkBackend(chooseBackend(`${path}:named`))).name).toBe('mine:named')
  expect((await checkBackend(chooseBackend(`a label=${path}`))).name).toBe('a label')
})

it.each([
  ['no-open', 'export const close = 1', "exports no function 'open'"],
  ['throws-at-import', "throw new Error('no licence')", 'cannot be loaded: no licence'],
])('tells before anything is measured what a module lacks: %s', async (name, source, message) => {
  await expect(checkBackend(chooseBackend(module(name, source)))).rejects.toThrow(message)
})

it('tells which variants a module has, and that a path leads nowhere', async () => {
  const path = module('variants', 'export const open = () => {}\nexport const variants = { fast: {} }')
  await expect(checkBackend(chooseBackend(`${path}:slow`))).rejects.toThrow(
    "has no variant 'slow'; there are fast",
  )
  expect(() => chooseBackend('./nowhere.mjs')).toThrow("'./nowhere.mjs' does not exist")
})

it.each([
  ['throws', "export const open = () => { throw new Error('disk gone') }", 'open() failed: disk gone'],
  ['empty', 'export const open = () => ({})', 'is no backup: it has no backupPages()'],
  [
    'wrong-page',
    'export const open = ({ capacityBytes }) => memoryBackup({ capacityBytes, pageSizeBytes: 8192 })',
    'pages of 8192 bytes and was asked for 4096',
  ],
])('refuses what open gives when it is not what was asked for: %s', async (name, source, message) => {
  await expect(open(module(name, source))).rejects.toThrow(message)
})
