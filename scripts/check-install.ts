/**
 * Installs each packed package, with no more than it asks for, into an empty project of its own, and lets a small
 * program use it there on every runtime that is supported. So a missing file, a forgotten dependency or an import that
 * only works inside this repository is found before a user finds it.
 *
 * One more project, `together`, has all of them.
 *
 *   check-install.ts [package …]     default: all
 */
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installBun, installDeno, installNode } from './runtimes/installed.ts'

const root = join(import.meta.dirname, '..')
const nodeMajors = ['22', '24', '26']
const together = 'together'
const scratch = mkdtempSync(join(tmpdir(), 'spillway-install-'))

function run(command: string, args: readonly string[], cwd: string): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

function manifestOf(name: string) {
  return JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'))
}

/** The packages of this repository that `name` cannot be installed without, itself included. */
function requiredPackages(name: string, found = new Set<string>()): Set<string> {
  if (found.has(name)) return found
  found.add(name)
  const manifest = manifestOf(name)
  const optional = manifest.peerDependenciesMeta ?? {}
  for (const dependency of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    if (dependency.startsWith('@spillway/') && !optional[dependency]?.optional) {
      requiredPackages(dependency.slice('@spillway/'.length), found)
    }
  }
  return found
}

function packAll(): Map<string, string> {
  const tarballs = new Map<string, string>()
  for (const name of readdirSync(join(root, 'packages'))) {
    const packed = JSON.parse(
      run('npm', ['pack', '--json', '--pack-destination', scratch], join(root, 'packages', name)),
    )
    tarballs.set(name, join(scratch, packed[0].filename))
  }
  return tarballs
}

function installInto(name: string, tarballs: Map<string, string>): string {
  const project = join(scratch, `project-${name}`)
  mkdirSync(project)
  writeFileSync(
    join(project, 'package.json'),
    JSON.stringify({ private: true, type: 'module', allowScripts: { koffi: true } }),
  )
  const wanted =
    name === together
      ? [...tarballs.values()]
      : [...requiredPackages(name)].map((required) => tarballs.get(required)!)
  run('npm', ['install', '--no-audit', '--no-fund', ...wanted], project)
  cpSync(join(root, 'scripts/install-checks', `${name}.mjs`), join(project, 'check.mjs'))
  return project
}

const asked = process.argv.slice(2)
const names = asked.length > 0 ? asked : [...readdirSync(join(root, 'packages')).sort(), together]
let failures = 0
try {
  const runtimes = [
    ...nodeMajors.map((major) => installNode(join(scratch, `node-${major}`), major)),
    installBun(join(scratch, 'bun')),
    installDeno(join(scratch, 'deno')),
  ]
  const tarballs = packAll()
  for (const name of names) {
    if (!existsSync(join(root, 'scripts/install-checks', `${name}.mjs`))) {
      console.log(`FAIL  ${name}: scripts/install-checks/${name}.mjs is missing`)
      failures++
      continue
    }
    const project = installInto(name, tarballs)
    for (const { name: runtime, command } of runtimes) {
      const [program, ...args] = command
      try {
        const said = run(program, [...args, 'check.mjs'], project).trim()
        console.log(`ok    ${name} on ${runtime}: ${said}`)
      } catch (failure) {
        const { stdout, stderr } = failure as { stdout: string; stderr: string }
        console.log(`FAIL  ${name} on ${runtime}\n${stdout}${stderr}`)
        failures++
      }
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
process.exitCode = failures === 0 ? 0 : 1
