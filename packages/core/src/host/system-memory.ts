/** Gives the text of a file, `undefined` where it cannot be read: `readFileSync` of `node:fs` in a `try`, or a stand-in. */
export type ReadText = (path: string) => string | undefined

/** Memory as one authority counts it: the machine, or one control group. */
export interface MemoryLevel {
  /** The directory of the control group; `'machine'` for the whole of it. */
  readonly name: string
  /** Bytes that may be used at most. */
  readonly limitBytes: number
  /** Bytes of the limit that could be taken now, 0 or more. Clean cached files count as available, memfds and tmpfs as used. */
  readonly availableBytes: number
}

/** What the system says about memory at one moment. */
export interface SystemMemory {
  /** The machine, and each control group above this process that has a limit. Empty where the system says nothing. */
  readonly levels: readonly MemoryLevel[]
  /** The least of all limits, infinite where there is none. */
  readonly limitBytes: number
  /** The least of what is available at any level, infinite where the system says nothing. */
  readonly availableBytes: number
  /** Percent of the last 10 seconds in which some task of the group waited for memory; `undefined` where it is not told. */
  readonly pressurePercent: number | undefined
}

/** Where the system tells about its memory; other directories are for tests. */
export interface SystemMemoryDirectories {
  /** @default '/proc' */
  readonly procDirectory?: string | undefined
  /** Where control groups lie when `self/mountinfo` does not tell. @default '/sys/fs/cgroup' */
  readonly cgroupDirectory?: string | undefined
}

const leastHeadroomBytes = 32 * 1024 * 1024

/**
 * Memory to leave alone under a limit: 5 %, 32 MiB at least. The kernel does not refuse the last page, it kills a process:
 * whoever stores pages in memory (memfd, tmpfs) stops this much before.
 */
export function memoryHeadroomBytes(limitBytes: number): number {
  const headroom = Number.isFinite(limitBytes) ? Math.floor(limitBytes / 20) : 0
  return Math.max(leastHeadroomBytes, headroom)
}

/** One hierarchy of control groups that counts memory: where it is mounted, and which of its groups is mounted there. */
interface Hierarchy {
  readonly isUnified: boolean
  readonly mountPoint: string
  readonly rootGroup: string
}

/**
 * Reads how much memory this process may use and could have now: the machine, and its control group with every one above
 * it, of version 1 and 2. A process may be moved between groups, so its group is looked up each time; mounts are looked up
 * once. One reading takes a tenth of a millisecond: keep it for some milliseconds.
 *
 *     const reader = new SystemMemoryReader(readText)
 *     const { limitBytes, availableBytes } = reader.read()
 *     const room = availableBytes - memoryHeadroomBytes(limitBytes)
 */
export class SystemMemoryReader {
  readonly #readText: ReadText
  readonly #procDirectory: string
  readonly #hierarchies: readonly Hierarchy[]

  constructor(readText: ReadText, directories: SystemMemoryDirectories = {}) {
    const { procDirectory = '/proc', cgroupDirectory = '/sys/fs/cgroup' } = directories
    this.#readText = readText
    this.#procDirectory = procDirectory
    const mounted = mountedHierarchies(readText(`${procDirectory}/self/mountinfo`) ?? '')
    this.#hierarchies = mounted.length > 0 ? mounted : usualHierarchies(cgroupDirectory)
  }

  read(): SystemMemory {
    const levels: MemoryLevel[] = []
    const machine = machineLevel(this.#readText(`${this.#procDirectory}/meminfo`) ?? '')
    if (machine !== undefined) levels.push(machine)
    let pressure: string | undefined
    for (const line of (this.#readText(`${this.#procDirectory}/self/cgroup`) ?? '').split('\n')) {
      const [, controllers, group] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
      if (group === undefined) continue
      const isUnified = controllers === ''
      if (!isUnified && !controllers.split(',').includes('memory')) continue
      for (const hierarchy of this.#hierarchies) {
        if (hierarchy.isUnified !== isUnified) continue
        const directories = directoriesAbove(hierarchy, group)
        if (isUnified) pressure ??= this.#readText(`${directories[0]}/memory.pressure`)
        for (const directory of directories) {
          const level = (isUnified ? unifiedLevel : legacyLevel)(directory, this.#readText)
          if (level !== undefined) levels.push(level)
        }
      }
    }
    pressure ??= this.#readText(`${this.#procDirectory}/pressure/memory`)
    const percent = /^some avg10=([\d.]+)/m.exec(pressure ?? '')?.[1]
    return {
      levels,
      limitBytes: Math.min(Number.POSITIVE_INFINITY, ...levels.map((level) => level.limitBytes)),
      availableBytes: Math.min(Number.POSITIVE_INFINITY, ...levels.map((level) => level.availableBytes)),
      pressurePercent: percent === undefined ? undefined : Number(percent),
    }
  }
}

/** `MemAvailable` is what can be had without swapping. */
function machineLevel(information: string): MemoryLevel | undefined {
  const availableKib = /^MemAvailable:\s+(\d+) kB$/m.exec(information)?.[1]
  if (availableKib === undefined) return undefined
  const totalKib = /^MemTotal:\s+(\d+) kB$/m.exec(information)?.[1] ?? Number.POSITIVE_INFINITY
  return {
    name: 'machine',
    limitBytes: Number(totalKib) * 1024,
    availableBytes: Number(availableKib) * 1024,
  }
}

/** The hierarchies that count memory, from the table of mounts (proc(5)): `36 35 0:31 /group /mounted/at … - type source options`. */
function mountedHierarchies(table: string): Hierarchy[] {
  const found: Hierarchy[] = []
  for (const line of table.split('\n')) {
    const [mount, fileSystem] = line.split(' - ')
    if (fileSystem === undefined) continue
    const [type, , options = ''] = fileSystem.split(' ')
    const isUnified = type === 'cgroup2'
    if (!isUnified && !(type === 'cgroup' && options.split(',').includes('memory'))) continue
    const [, , , rootGroup, mountPoint] = mount.split(' ').map(unescaped)
    found.push({ isUnified, mountPoint, rootGroup })
  }
  return found
}

/** Space, tab, line end and backslash are octal in the table of mounts. */
function unescaped(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)))
}

function usualHierarchies(directory: string): Hierarchy[] {
  return [
    { isUnified: true, mountPoint: directory, rootGroup: '/' },
    { isUnified: false, mountPoint: `${directory}/memory`, rootGroup: '/' },
  ]
}

/**
 * The directories of a group and of all above it, up to where the hierarchy is mounted. In a container the group may lie
 * outside of what is mounted; then the levels that are there count.
 */
function directoriesAbove({ mountPoint, rootGroup }: Hierarchy, group: string): string[] {
  const isInside = group === rootGroup || group.startsWith(rootGroup === '/' ? '/' : `${rootGroup}/`)
  const names: string[] = []
  for (const name of (isInside && rootGroup !== '/' ? group.slice(rootGroup.length) : group).split('/')) {
    if (name === '..') names.pop()
    else if (name !== '' && name !== '.') names.push(name)
  }
  const directories: string[] = []
  for (let depth = names.length; depth >= 0; depth--) {
    directories.push([mountPoint, ...names.slice(0, depth)].join('/'))
  }
  return directories
}

function unifiedLevel(directory: string, readText: ReadText): MemoryLevel | undefined {
  const limitBytes = Math.min(
    limitIn(readText(`${directory}/memory.max`)),
    // Beyond this a group is throttled until it hardly moves.
    limitIn(readText(`${directory}/memory.high`)),
  )
  if (limitBytes === Number.POSITIVE_INFINITY) return undefined
  const usedBytes = Number(readText(`${directory}/memory.current`) ?? 0)
  const { cleanFileBytes } = countersOf(
    readText(`${directory}/memory.stat`),
    '',
    'file_dirty',
    'file_writeback',
  )
  return levelOf(directory, limitBytes, usedBytes, cleanFileBytes)
}

function legacyLevel(directory: string, readText: ReadText): MemoryLevel | undefined {
  const counters = countersOf(
    readText(`${directory}/memory.stat`),
    'total_',
    'total_dirty',
    'total_writeback',
  )
  // The second knows of groups above that a container cannot see.
  const limitBytes = Math.min(
    limitIn(readText(`${directory}/memory.limit_in_bytes`)),
    counters.hierarchicalLimitBytes,
  )
  if (limitBytes === Number.POSITIVE_INFINITY) return undefined
  const usedBytes = Number(readText(`${directory}/memory.usage_in_bytes`) ?? 0)
  return levelOf(directory, limitBytes, usedBytes, counters.cleanFileBytes)
}

function levelOf(name: string, limitBytes: number, usedBytes: number, cleanFileBytes: number): MemoryLevel {
  const availableBytes = Math.max(0, Math.min(limitBytes, limitBytes - usedBytes + cleanFileBytes))
  return { name, limitBytes, availableBytes }
}

/** Cached files that need no writing are dropped by the kernel before it refuses memory. Pages of a tmpfs are in neither list. */
function countersOf(statistics: string | undefined, prefix: string, dirtyKey: string, writebackKey: string) {
  const counters = new Map<string, number>()
  for (const line of (statistics ?? '').split('\n')) {
    const space = line.indexOf(' ')
    if (space > 0) counters.set(line.slice(0, space), Number(line.slice(space + 1)))
  }
  const bytes = (key: string): number => counters.get(key) ?? 0
  const cachedBytes = bytes(`${prefix}inactive_file`) + bytes(`${prefix}active_file`)
  return {
    cleanFileBytes: Math.max(0, cachedBytes - bytes(dirtyKey) - bytes(writebackKey)),
    hierarchicalLimitBytes: limitIn(counters.get('hierarchical_memory_limit')),
  }
}

/** Limits beyond this mean "none": version 1 writes the largest multiple of a page. */
const noLimitBytes = 2 ** 60

function limitIn(value: string | number | undefined): number {
  const bytes = typeof value === 'string' && value.trim() !== '' ? Number(value) : (value ?? Number.NaN)
  return typeof bytes !== 'number' || Number.isNaN(bytes) || bytes >= noLimitBytes
    ? Number.POSITIVE_INFINITY
    : bytes
}
