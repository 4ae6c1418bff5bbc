import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import type { Backup } from '@spillway/core'
import { backupSuites, type OpenRequest } from '@spillway/core/conformance'
import { type BackendChoice, checkBackend, chooseBackend } from './backends.ts'
import { type DemandOutcome, Demands } from './conform/demands.ts'
import { parseCount, parseDirectory, parsePageSize } from './run-options.ts'
import { makeScratch } from './scratch.ts'
import { within } from './time-limit.ts'
import { failureLine, UsageError } from './usage-error.ts'

export interface ConformArguments {
  readonly pageSize: string
  readonly patience: string
  readonly seed: string
  readonly directory?: string
}

/**
 * The command `conform`: tries every demand of the conformance suite on a backend, and says in words which do not hold. Resolves to
 * 0 when all hold, else 1.
 */
export async function conformCommand(
  name: string,
  given: ConformArguments,
  signal: AbortSignal,
): Promise<number> {
  const limitMs = parseCount(given.patience, '--patience', 1, 86_400) * 1000
  const seed = parseCount(given.seed, '--seed', 0, 2 ** 31)
  const pageSizeBytes = parsePageSize(given.pageSize)
  const choice = await checkBackend(chooseBackend(name))
  if (choice.description.name === 's3') {
    throw new UsageError("conform takes no service; 'npm test' of the repository runs the suite on S3")
  }
  using scratch = makeScratch(parseDirectory(given.directory))
  const open = opener(choice, pageSizeBytes, scratch.path)
  const first = await firstFailure(open, limitMs)
  if (first !== undefined) {
    console.log(`✗ ${choice.name} cannot be opened: ${first}`)
    return 1
  }
  const demands = new Demands()
  const { corrupt, reopen, startsCopies } = (await choice.description.check?.()) ?? {}
  const { describe, it } = demands
  backupSuites({ describe, it, name: choice.name, open, corrupt, reopen, startsCopies, seed })
  console.log(`${choice.name}: ${demands.count} demands, pages of ${pageSizeBytes} bytes, seed ${seed}`)
  const outcomes: DemandOutcome[] = []
  for await (const outcome of demands.tryAll(limitMs, signal)) {
    outcomes.push(outcome)
    if (outcome.failure !== undefined) console.log(failureText(outcome))
  }
  const failed = outcomes.filter(({ failure }) => failure !== undefined).length
  console.log(
    failed === 0
      ? `✓ all ${outcomes.length} demands hold`
      : `✗ ${failed} of ${outcomes.length} demands do not hold`,
  )
  return failed === 0 ? 0 : 1
}

function opener({ description, settings }: BackendChoice, pageSizeBytes: number, directory: string) {
  return ({ capacityPages }: OpenRequest): Promise<Backup> =>
    description.open({
      capacityBytes: capacityPages * pageSizeBytes,
      pageSizeBytes,
      directory: mkdtempSync(join(directory, 'conform-')),
      io: 'auto',
      checksums: true,
      warmBytes: 0,
      ...settings,
    })
}

/** Why not even one backup could be opened and closed, where that is so: every demand would fail for it. */
async function firstFailure(
  open: (request: OpenRequest) => Promise<Backup>,
  limitMs: number,
): Promise<string | undefined> {
  const openAndClose = async () => {
    const backup = await open({ capacityPages: 64 })
    await backup.close()
  }
  try {
    await within(limitMs, openAndClose(), 'open() or close() did not settle')
    return undefined
  } catch (failure) {
    return failureLine(failure)
  }
}

function failureText({ concern, demand, failure = '' }: DemandOutcome): string {
  return `✗ ${concern} › ${demand}\n    ${failure.split('\n').join('\n    ')}`
}
