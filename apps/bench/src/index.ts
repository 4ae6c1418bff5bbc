export type { BackendModule, BackendModuleSettings } from './backend-module-types.ts'
export type { CaseResult, FailedCase, Machine, RunResult } from './results.ts'
