/**
 * Compiles a small program against the built packages with each TypeScript that is supported, in a project that sets nothing but
 * `module`. Exits 1 when one of them complains.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import identity from './identity.json' with { type: 'json' }

const root = join(import.meta.dirname, '..')
const versions = ['5.9', '6', '7']
const scratch = mkdtempSync(join(tmpdir(), 'spillway-types-'))
const names = ['core', 'native', 'backup-shmem', 'backup-file', 'pool']

const program = `
${names.map((name, index) => `import * as package${index} from '${identity.scope}/${name}'`).join('\n')}
const { memoryBackup } = package0
const pool = new package4.Pool({ limitBytes: 2 ** 24, backup: memoryBackup({ capacityBytes: 2 ** 24 }) })
export const close: () => Promise<void> = () => pool[Symbol.asyncDispose]()
export const all = [package1, package2, package3]
`

function install(name: string): void {
  execFileSync('npm', ['install', '--no-audit', '--no-fund', name], {
    cwd: scratch,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}

let failures = 0
try {
  writeFileSync(join(scratch, 'package.json'), '{"private":true,"type":"module"}')
  writeFileSync(join(scratch, 'program.ts'), program)
  install('@types/node@22')
  for (const version of versions) install(`typescript-${version}@npm:typescript@${version}`)
  const scope = join(scratch, 'node_modules', identity.scope)
  mkdirSync(scope)
  for (const name of readdirSync(join(root, 'packages'))) {
    symlinkSync(join(root, 'packages', name), join(scope, name))
  }
  for (const version of versions) {
    const compiler = join(scratch, `node_modules/typescript-${version}/bin/tsc`)
    const args = [
      compiler,
      '--noEmit',
      '--strict',
      '--module',
      'nodenext',
      '--skipLibCheck',
      'false',
      'program.ts',
    ]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: scratch, encoding: 'utf8' })
    console.log(
      status === 0 ? `ok    TypeScript ${version}` : `FAIL  TypeScript ${version}\n${stdout}${stderr}`,
    )
    if (status !== 0) failures++
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
process.exitCode = failures === 0 ? 0 : 1
