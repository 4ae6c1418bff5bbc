/** How figures are written, and what they say together. */

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** A number with three digits that count. */
function short(value) {
  if (value >= 100 || value === 0) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

export function bytesText(bytes) {
  let value = bytes
  let unit = 0
  for (; value >= 1024 && unit < byteUnits.length - 1; unit++) value /= 1024
  return `${unit === 0 ? Math.round(value) : short(value)} ${byteUnits[unit]}`
}

export function rateText(bytesPerSecond) {
  return `${bytesText(bytesPerSecond)}/s`
}

export function secondsText(seconds) {
  if (seconds >= 1) return `${short(seconds)} s`
  return seconds >= 0.001 ? `${short(seconds * 1000)} ms` : `${short(seconds * 1e6)} µs`
}

export function shareText(share) {
  return Number.isNaN(share) ? '–' : `${(share * 100).toFixed(share > 0.995 && share < 1 ? 2 : 1)} %`
}

export function countText(count) {
  return count.toLocaleString('en')
}

/** How much counters grew in a second, between two looks at the stats of a pool. */
export function ratesOf(now, before) {
  const seconds = (now.atMs - before.atMs) / 1000
  const rate = (name) => (seconds > 0 ? Math.max(0, now.stats[name] - before.stats[name]) / seconds : 0)
  const bytes = (name) => rate(name) * now.pageSizeBytes
  const used = rate('usedChunks')
  return {
    restored: bytes('restoredPages'),
    stored: bytes('backedUpPages'),
    evicted: bytes('evictedCleanPages') + bytes('evictedDirtyPages'),
    refaulted: bytes('refaultedPages'),
    refaultedShare: rate('refaultedPages') / rate('restoredPages'),
    hitRate: used === 0 ? Number.NaN : Math.max(0, 1 - rate('missedChunks') / used),
    used,
    waits: rate('waits'),
    refusals: rate('refusals'),
    failures: rate('backupFailures') + rate('restoreFailures'),
  }
}

/** What a pool does, in a word, how much that matters, and why it is said. */
export function verdictOf(stats, rates) {
  const { limitBytes, residentBytes, pinnedBytes, waiters } = stats
  const turnover = rates.restored / limitBytes
  if (rates.failures > 0)
    return { level: 'bad', word: '✖ Backup fails', why: `${short(rates.failures)} failed calls a second` }
  if (turnover > 0.02 && rates.refaultedShare > 0.3)
    return {
      level: 'bad',
      word: '▲ Thrashing',
      why: `${shareText(rates.refaultedShare)} of what is restored had just been evicted: the working set is larger than the limit`,
    }
  if (turnover > 0.2 && rates.hitRate < 0.5)
    return {
      level: 'warn',
      word: '↻ Turning over',
      why: `a limit's worth is restored every ${secondsText(1 / turnover)}, and ${shareText(rates.hitRate)} of accesses find memory`,
    }
  if (waiters > 0 && pinnedBytes > limitBytes / 2)
    return { level: 'warn', word: '⧗ Waiting', why: `${waiters} wait for memory that pins hold` }
  if (rates.restored + rates.evicted > 0)
    return { level: 'busy', word: '⇅ Spilling', why: 'more is used than fits, and the hit rate holds' }
  if (residentBytes > limitBytes * 0.95) return { level: 'calm', word: '■ Full', why: 'and nothing moves' }
  return { level: 'calm', word: '● Calm', why: 'nothing moves' }
}

/** A duration below which so many of the calls stayed: the bound of a bucket. */
export function quantileOf(counts, bounds, share) {
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (total === 0) return Number.NaN
  let sum = 0
  for (const [index, count] of counts.entries()) {
    sum += count
    if (sum >= total * share) return bounds[index] ?? Number.POSITIVE_INFINITY
  }
  return Number.NaN
}

export function boundText(seconds) {
  if (Number.isNaN(seconds)) return '–'
  return seconds === Number.POSITIVE_INFINITY ? '> 10 s' : `≤ ${secondsText(seconds)}`
}
