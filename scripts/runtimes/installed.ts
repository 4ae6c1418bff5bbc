import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A JavaScript runtime that was installed from npm. */
export interface Runtime {
  readonly name: string
  /** Program and arguments that come before the script. */
  readonly command: readonly [program: string, ...args: string[]]
}

/** Versions on which everything is tried; Node comes as a major version, because it is supported as one. */
const bunVersion = '1.4.5'
const denoVersion = '2.9.6'

/** The Node that runs this script serves for its own major version. */
export async function installNode(folder: string, major: string): Promise<Runtime> {
  const name = `Node ${major}`
  if (process.versions.node.startsWith(`${major}.`)) return { name, command: [process.execPath] }
  await install(folder, 'node', major)
  return { name, command: [join(folder, 'node_modules/node/bin/node')] }
}

export async function installBun(folder: string): Promise<Runtime> {
  await install(folder, 'bun', bunVersion)
  return { name: `Bun ${bunVersion}`, command: [join(folder, 'node_modules/.bin/bun')] }
}

/** With all permissions: shared memory asks for them. */
export async function installDeno(folder: string): Promise<Runtime> {
  await install(folder, 'deno', denoVersion)
  return { name: `Deno ${denoVersion}`, command: [join(folder, 'node_modules/.bin/deno'), 'run', '-A'] }
}

async function install(folder: string, name: string, version: string): Promise<void> {
  mkdirSync(folder)
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ private: true, allowScripts: { [name]: true } }),
  )
  const wanted = ['--no-audit', '--no-fund', `${name}@${version}`]
  await promisify(execFile)('npm', ['install', ...wanted], { cwd: folder })
}
