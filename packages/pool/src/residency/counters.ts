/** What happened so far, in pages unless it says otherwise. Only ever grows. */
export class Counters {
  /** Pages stored by `backup` and by reclaim. */
  backedUpPages = 0
  /** Pages copied in from a backup. */
  restoredPages = 0
  /** Pages read from a backup without being copied in, while memory was full of what no backup took. */
  bypassedPages = 0
  /** Pages whose content was given up. */
  purgedPages = 0
  /** Pages evicted without I/O: they were stored already, or all zeros. */
  evictedCleanPages = 0
  /** Pages evicted after they were stored. */
  evictedDirtyPages = 0
  /** Pages restored soon after they were evicted: the sign of thrashing. */
  refaultedPages = 0
  /** Chunks that an access, or `restore`, found only in a backup, all or in part. */
  missedChunks = 0
  /** Calls to a backup that stored, and that copied in. */
  backupCalls = 0
  restoreCalls = 0
  /** Calls to a backup that came back with an error. */
  backupFailures = 0
  restoreFailures = 0
  /** Chunks that were split because their backup stopped in the middle of them (T38). */
  splitChunks = 0
  /** Restores that were begun before anybody asked. */
  readaheads = 0
  /** Claims of memory that had to wait, and that were refused. */
  waits = 0
  refusals = 0
}
