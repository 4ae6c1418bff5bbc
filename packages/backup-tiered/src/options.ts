import { assertByteCount, assertInnerBackup, assertKnownOptions, type Backup } from '@spillway/core'

/** A backup, and how full it may become. Marks up to 1 are a share of what it can hold, others are bytes. */
export interface TierOptions {
  readonly backup: Backup
  /** Above it the oldest pages move on to the next tier. The last tier has no marks. @default 0.9 */
  readonly highMark?: number | undefined
  /** Until so much is left. @default 0.8, or `highMark` where that is lower */
  readonly lowMark?: number | undefined
}

export interface TieredBackupOptions {
  /** Fastest first. Each may be given with marks. */
  readonly tiers: readonly (Backup | TierOptions)[]
  /** Whether a page that was read a second time from a slower tier moves to the first. @default 'never' */
  readonly promote?: 'never' | 'second' | undefined
  /** How much may move between tiers in a second. @default 256 MiB */
  readonly moveBytesPerSecond?: number | undefined
  /** Names it in errors and statistics. @default 'tiered' */
  readonly name?: string | undefined
}

/** A tier with its marks filled in; the last has none. */
export interface TierSettings {
  readonly backup: Backup
  readonly highMark: number | undefined
  readonly lowMark: number | undefined
}

/** Throws `TypeError` or `RangeError` that names the bad value and says what would be right. */
export function settingsOf(options: TieredBackupOptions): TierSettings[] {
  assertKnownOptions(options, ['tiers', 'promote', 'moveBytesPerSecond', 'name'], 'tieredBackup')
  const { tiers, promote = 'never', moveBytesPerSecond, name } = options
  if (!Array.isArray(tiers) || tiers.length === 0) throw new TypeError('tieredBackup needs at least one tier')
  if (promote !== 'never' && promote !== 'second') {
    throw new RangeError(`promote is ${String(promote)}; it must be 'never' or 'second'`)
  }
  if (moveBytesPerSecond !== undefined) {
    assertByteCount(moveBytesPerSecond, 'moveBytesPerSecond')
    if (moveBytesPerSecond === 0) throw new RangeError('moveBytesPerSecond is 0; it must be 1 or more')
  }
  if (name !== undefined && (typeof name !== 'string' || name === '')) {
    throw new TypeError(`name is ${String(name)}; it must be a string of at least one character`)
  }
  const settings = tiers.map((tier, index) => settingsOfTier(tier, index, tiers.length))
  const { pageSizeBytes } = settings[0].backup.capabilities
  for (const [index, { backup }] of settings.entries()) {
    if (settings.findIndex((other) => other.backup === backup) !== index) {
      throw new TypeError(`tier ${index} is ${backup.name}, which is another tier already`)
    }
    if (backup.capabilities.pageSizeBytes === pageSizeBytes) continue
    throw new RangeError(
      `tier ${index} has pages of ${backup.capabilities.pageSizeBytes} bytes; those of the first have ${pageSizeBytes}`,
    )
  }
  return settings
}

function settingsOfTier(tier: Backup | TierOptions, index: number, count: number): TierSettings {
  const isBackup = typeof (tier as Backup | undefined)?.backupPages === 'function'
  const given: TierOptions = isBackup ? { backup: tier as Backup } : (tier as TierOptions)
  assertKnownOptions(given, isBackup ? ['backup'] : ['backup', 'highMark', 'lowMark'], `tier ${index}`)
  const { backup, highMark, lowMark } = given
  assertInnerBackup(backup, 'tieredBackup')
  if (index === count - 1) {
    if (highMark === undefined && lowMark === undefined) return { backup, highMark, lowMark }
    throw new TypeError(`tier ${index} is the last, from which no page moves on; it has no marks`)
  }
  const high = highMark ?? 0.9
  const low = lowMark ?? Math.min(0.8, high)
  for (const [mark, value] of Object.entries({ highMark: high, lowMark: low })) {
    if (typeof value === 'number' && value >= 0 && Number.isFinite(value)) continue
    throw new RangeError(`${mark} of tier ${index} is ${String(value)}; it must be a share up to 1, or bytes`)
  }
  if (low > high || (low <= 1 && high > 1)) {
    throw new RangeError(
      `lowMark of tier ${index} is ${low}; it must be at most its highMark, ${high}, and of its kind`,
    )
  }
  return { backup, highMark: high, lowMark: low }
}
