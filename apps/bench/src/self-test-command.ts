import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spoilers } from './backends.ts'
import { isFailedCase, startCase } from './case/start-case.ts'
import { listInputFiles } from './input/files.ts'
import { planInput, savePlan } from './input/plan.ts'
import { isCleanCase } from './results.ts'
import { makeScratch } from './scratch.ts'
import { mebibyte } from './sizes.ts'
import { caseLine } from './table.ts'

/**
 * The command `self-test`: runs small cases on backends that are spoiled on purpose, and one that is not. Resolves to 0 when
 * exactly the spoiled ones were found out.
 */
export async function selfTestCommand(signal: AbortSignal): Promise<number> {
  using scratch = makeScratch(tmpdir())
  const limitBytes = 8 * mebibyte
  const plan = planInput({
    files: listInputFiles([process.execPath]),
    wantedBytes: 3 * limitBytes,
    bufferBytes: mebibyte,
    seed: 1,
  })
  const planPath = join(scratch.path, 'plan.json')
  savePlan(planPath, plan)
  let failures = 0
  for (const subject of ['memory', ...spoilers.map((spoiler) => `memory+${spoiler}`)]) {
    const outcome = await startCase({
      order: {
        subject,
        workload: 'sweep',
        limitBytes,
        pageSizeBytes: 4096,
        rounds: 1,
        concurrency: 2,
        directory: scratch.path,
        io: 'auto',
        checksums: true,
        budgetMs: undefined,
        planPath,
      },
      plan,
      ceilings: {},
      memoryGroup: undefined,
      patienceMs: 120_000,
      signal,
      onPhase: () => {},
      onProgress: () => {},
    })
    const spoiled = subject !== 'memory'
    const found = isFailedCase(outcome) ? spoiled : !isCleanCase(outcome)
    console.log(caseLine(outcome))
    console.log(
      `  ${found === spoiled ? 'as it should be' : 'NOT as it should be'}: ${spoiled ? 'spoiled on purpose' : 'not spoiled'}, ${found ? 'found wrong' : 'found right'}`,
    )
    if (found !== spoiled) failures++
  }
  return failures === 0 ? 0 : 1
}
