import type { Backup } from '../contract.ts'

/** What the suite asks of `open`. */
export interface OpenRequest {
  /** The backup has to be empty and hold this many pages: no fewer, and no more than it takes to tell that it is full. */
  readonly capacityPages: number
}

export interface BackupSuiteOptions {
  /** `describe` of the test runner: node:test, vitest, jest, mocha, … */
  readonly describe: (name: string, body: () => void) => unknown
  /** `it` of the test runner; the body's promise says when the test is over. */
  readonly it: (name: string, body: () => Promise<void>) => unknown
  /** Names the backup in the report. */
  readonly name: string
  /** Opens a new, empty backup that shares nothing with those opened before. The suite closes it. */
  readonly open: (request: OpenRequest) => Promise<Backup>
  /**
   * Damages the stored bytes of one page behind the backup's back: flips a bit, cuts the medium off. Give it when
   * `capabilities.detectsCorruption` is true.
   */
  readonly corrupt?: ((backup: Backup, handle: number) => Promise<void>) | undefined
  /** Opens what a backup left that was closed. Give it for a backup that has `images`; they are tested then. */
  readonly reopen?: ((closed: Backup) => Promise<Backup>) | undefined
  /**
   * Whether `startCopy` has to begin a copy of live pages that is small enough. Without it the suite takes false for an
   * answer, as a pool does, and only looks at what was begun.
   */
  readonly startsCopies?: boolean | undefined
  /**
   * Memory of so many bytes that the backup copies into without a detour, where ordinary memory is not such: started copies are
   * given it. Default: a new Uint8Array.
   */
  readonly memory?: ((bytes: number) => Uint8Array) | undefined
  /** Replays the random histories of `faultyBackupSuite`; a failure tells its seed. Default: random. */
  readonly seed?: number | undefined
}
