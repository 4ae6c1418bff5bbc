/** What `run` writes as JSON. */
export type { CaseResult, FailedCase, Machine, RunResult } from './results.ts'
