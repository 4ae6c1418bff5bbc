import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { readRunResult } from './results.ts'
import { parseOutput } from './run-options.ts'

/** The command `report`: draws runs that were measured before as one HTML page. Resolves to the exit status. */
export async function reportCommand(paths: readonly string[], reportPath: string): Promise<number> {
  const runs = paths.map((path) => ({ label: basename(path, '.json'), run: readRunResult(path) }))
  const target = parseOutput(reportPath, '--report')!
  const { renderReport, renderReports } = await import('./report/page.ts')
  mkdirSync(dirname(target), { recursive: true })
  writeFileSync(target, runs.length === 1 ? renderReport(runs[0].run) : renderReports(runs))
  console.log(`written: ${target}`)
  return 0
}
