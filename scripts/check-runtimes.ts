/**
 * Runs the built packages where they are not developed: the conformance suites under Bun and Deno, imports in a Deno without
 * permissions, and imports in a Node that is too old, which must say so in one sentence. Exits 1 when anything is wrong.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { oldestNodeVersion } from '@spillway/core'
import { installBun, installDeno, installNode, type Runtime } from './runtimes/installed.ts'

const root = join(import.meta.dirname, '..')
const scratch = mkdtempSync(join(tmpdir(), 'spillway-runtimes-'))
const packages = [
  'core',
  'native',
  'backup-shmem',
  'backup-file',
  'backup-encrypted',
  'backup-compressed',
  'backup-tiered',
  'backup-s3',
  'pool',
]
const longestMs = 600_000
let failures = 0

function report(name: string, isRight: boolean, said: string): void {
  console.log(`${isRight ? 'ok   ' : 'FAIL '} ${name}: ${said}`)
  if (!isRight) failures++
}

function run({ command: [program, ...args] }: Runtime, script: string) {
  const env = { ...process.env, NO_COLOR: '1' }
  const { status, signal, stdout, stderr } = spawnSync(program, [...args, script], {
    cwd: root,
    encoding: 'utf8',
    env,
    input: '',
    timeout: longestMs,
  })
  return { isRight: status === 0, output: `${stdout}${stderr}`.trim(), signal }
}

const urlOf = (name: string) => JSON.stringify(join(root, 'packages', name, 'dist/index.js'))

function checkConformance(runtime: Runtime): void {
  const { isRight, output, signal } = run(runtime, 'scripts/runtimes/conformance.ts')
  const lines = output.split('\n')
  const said = isRight ? `${lines.at(-1)} (${lines[0]})` : `${signal ?? ''}\n${output}`
  report(`conformance on ${runtime.name}`, isRight, said)
}

function checkImportWithoutPermissions(deno: Runtime): void {
  const withoutPermissions: Runtime = { ...deno, command: [deno.command[0], 'run', '--no-prompt'] }
  const { isRight, output } = run(withoutPermissions, 'scripts/runtimes/imports.ts')
  report(`imports on ${deno.name} without permissions`, isRight && output === 'imported', output)
}

function checkOldNode(node: Runtime): void {
  for (const name of packages) {
    const script = join(scratch, `old-${name}.mjs`)
    writeFileSync(script, `import(${urlOf(name)}).then(() => {}, ({ message }) => console.log(message))`)
    const { output } = run(node, script)
    const isRight = output.startsWith(`Spillway needs Node.js ${oldestNodeVersion} or later; this is `)
    report(`${name} on ${node.name}`, isRight, output)
  }
}

try {
  const deno = await installDeno(join(scratch, 'deno'))
  checkConformance(await installBun(join(scratch, 'bun')))
  checkConformance(deno)
  checkImportWithoutPermissions(deno)
  checkOldNode(await installNode(join(scratch, 'node-20'), '20'))
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
process.exitCode = failures === 0 ? 0 : 1
