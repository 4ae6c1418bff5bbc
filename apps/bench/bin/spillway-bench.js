#!/usr/bin/env node
/** Starts the command; plain JavaScript, so that it is there right after `npm ci` in a checkout, which it then builds. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 19)) {
  console.error(`spillway-bench: needs Node 22.19 or later, this is ${process.version}`)
  process.exit(2)
}
const command = new URL('../dist/cli.js', import.meta.url)
if (!existsSync(command)) {
  console.error('spillway-bench: this checkout is not built yet; building it once')
  execFileSync('npm', ['run', 'build', '--', '--output-logs=errors-only'], {
    cwd: new URL('../../..', import.meta.url),
    stdio: ['ignore', process.stderr, process.stderr],
  })
}
await import(command.href)
