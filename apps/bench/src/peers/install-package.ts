import { spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'

/** Packages that have to be compiled take minutes; what takes longer is not worth waiting for. */
const patienceMs = 300_000
const keptOutput = 20_000

/**
 * Installs a package with npm into a directory of its own. Resolves to why that was not possible, or to undefined; rejects only when
 * aborted.
 */
export async function installPackage(
  { name, version }: { readonly name: string; readonly version: string },
  directory: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  signal.throwIfAborted()
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'package.json'), '{ "private": true }\n')
  // A group of its own, so that what npm started ends with it.
  const child = spawn(
    'npm',
    ['install', '--no-audit', '--no-fund', '--no-package-lock', '--fetch-retries=1', `${name}@${version}`],
    {
      cwd: directory,
      // Its scripts have to run in the Node that will load what they build.
      env: { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env['PATH'] ?? ''}` },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-keptOutput)
    })
  }
  const kill = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
  let tooLong = false
  const timer = setTimeout(() => {
    tooLong = true
    kill()
  }, patienceMs)
  signal.addEventListener('abort', kill, { once: true })
  try {
    const problem = await new Promise<string | undefined>((resolve) => {
      child.once('error', (failure) => resolve(failure.message))
      child.once('close', (code) => resolve(code === 0 ? undefined : reasonIn(output)))
    })
    signal.throwIfAborted()
    if (problem === undefined) return undefined
    return `it could not be installed: ${tooLong ? `npm took longer than ${patienceMs / 1000} s` : problem}`
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', kill)
  }
}

/** The first line in which npm says what was wrong, without its decoration. */
function reasonIn(output: string): string {
  const lines = output.split('\n').map((line) => line.replace(/^npm (?:ERR!|error)\s*/, '').trim())
  const problems = lines.filter((_, index) => /^npm (?:ERR!|error)/.test(output.split('\n')[index]))
  return problems.find((line) => line !== '' && !/^(?:code|errno|path|command) /.test(line)) ?? 'npm failed'
}
