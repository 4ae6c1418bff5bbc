import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** A JavaScript runtime that was installed from npm. */
export interface Runtime {
  readonly name: string
  /** Program and arguments that come before the script. */
  readonly command: readonly [program: string, ...args: string[]]
}

/** Versions on which everything is tried; Node comes as a major version, because it is supported as one. */
const bunVersion = '1.4.5'
const denoVersion = '2.9.6'

export function installNode(folder: string, major: string): Runtime {
  install(folder, 'node', major)
  return { name: `Node ${major}`, command: [join(folder, 'node_modules/node/bin/node')] }
}

export function installBun(folder: string): Runtime {
  install(folder, 'bun', bunVersion)
  return { name: `Bun ${bunVersion}`, command: [join(folder, 'node_modules/.bin/bun')] }
}

/** With all permissions: shared memory asks for them. */
export function installDeno(folder: string): Runtime {
  install(folder, 'deno', denoVersion)
  return { name: `Deno ${denoVersion}`, command: [join(folder, 'node_modules/.bin/deno'), 'run', '-A'] }
}

function install(folder: string, name: string, version: string): void {
  mkdirSync(folder)
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ private: true, allowScripts: { [name]: true } }),
  )
  execFileSync('npm', ['install', '--no-audit', '--no-fund', `${name}@${version}`], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}
