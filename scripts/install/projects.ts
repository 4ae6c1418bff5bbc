import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Runtime } from '../runtimes/installed.ts'
import type { Registry } from './registry.ts'

const run = promisify(execFile)

/** A way to install packages, and the runtimes that use what it installed. */
export interface PackageManager {
  readonly name: string
  /** Program and arguments that come before the names of packages. */
  readonly command: readonly [program: string, ...args: string[]]
  /** What goes before each name. */
  readonly prefix: string
  readonly runtimes: readonly Runtime[]
}

export function npm(runtimes: readonly Runtime[]): PackageManager {
  // An earlier registry may have had the same port, and other packages of the same version.
  const command = ['npm', 'install', '--no-audit', '--no-fund', '--prefer-online'] as const
  return { name: 'npm', command, prefix: '', runtimes }
}

export function bun(runtime: Runtime): PackageManager {
  return { name: 'bun', command: [runtime.command[0], 'add'], prefix: '', runtimes: [runtime] }
}

/** Deno would refuse packages that are younger than a day. */
export function deno(runtime: Runtime): PackageManager {
  const command = [runtime.command[0], 'add', '--quiet', '--minimum-dependency-age=0'] as const
  return { name: 'deno', command, prefix: 'npm:', runtimes: [runtime] }
}

/** Makes an empty project in a folder and installs packages into it by their names. */
export async function makeProject(
  folder: string,
  { command: [program, ...args], prefix }: PackageManager,
  names: readonly string[],
  { npmrc }: Registry,
): Promise<void> {
  mkdirSync(folder)
  const manifest = { private: true, type: 'module', allowScripts: { koffi: true } }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  writeFileSync(join(folder, '.npmrc'), `${npmrc}\n`)
  await run(program, [...args, ...names.map((name) => prefix + name)], { cwd: folder })
}

/** Runs a script of a project; what it printed, or an error with all that it said. */
export async function runIn(
  folder: string,
  { command: [program, ...args] }: Runtime,
  script: string,
): Promise<string> {
  const env = { ...process.env, NO_COLOR: '1' }
  const { stdout } = await run(program, [...args, script], { cwd: folder, env, timeout: 60_000 })
  return stdout.trim()
}
