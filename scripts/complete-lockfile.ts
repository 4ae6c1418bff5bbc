/**
 * Adds to `package-lock.json` the optional packages of other platforms that npm left out. npm forgets an optional package
 * that it could not load when it wrote the lockfile, and `npm ci` then refuses the lockfile as incomplete, also where that
 * package is not wanted. Run it after a change of dependencies; it changes nothing when nothing is missing.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface LockedPackage {
  version?: string
  dev?: boolean
  optional?: boolean
  os?: string[]
  cpu?: string[]
  libc?: string[]
  optionalDependencies?: Record<string, string>
}

const path = join(import.meta.dirname, '../package-lock.json')
const lockfile = JSON.parse(readFileSync(path, 'utf8'))
const packages: Record<string, LockedPackage> = lockfile.packages

const systems: readonly [RegExp, string][] = [
  [/win32|windows/, 'win32'],
  [/darwin/, 'darwin'],
  [/android/, 'android'],
  [/freebsd/, 'freebsd'],
  [/openbsd/, 'openbsd'],
  [/openharmony/, 'openharmony'],
  [/linux/, 'linux'],
]
const processors: readonly [RegExp, string][] = [
  [/arm64/, 'arm64'],
  [/arm/, 'arm'],
  [/ia32/, 'ia32'],
  [/(loong64|ppc64|riscv64|s390x)/, '$1'],
  [/64/, 'x64'],
]

/** What the platform's part of a package name says, as npm's `os`, `cpu` and `libc` say it. */
function platformOf(name: string): Pick<LockedPackage, 'os' | 'cpu' | 'libc'> {
  const platform = name.split('/').at(-1) ?? name
  const system = systems.find(([pattern]) => pattern.test(platform))?.[1]
  const processor = processors.find(([pattern]) => pattern.test(platform))
  if (system === undefined || processor === undefined) throw new Error(`${name} names no platform`)
  const cpu = processor[1] === '$1' ? (processor[0].exec(platform)?.[1] ?? '') : processor[1]
  const libc = system !== 'linux' ? undefined : /musl/.test(platform) ? 'musl' : 'glibc'
  return { os: [system], cpu: [cpu], ...(libc === undefined ? {} : { libc: [libc] }) }
}

let added = 0
for (const entry of Object.values(packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (packages[key] !== undefined || !/^\d+\.\d+\.\d+/.test(version)) continue
    packages[key] = { version, ...(entry.dev ? { dev: true } : {}), optional: true, ...platformOf(name) }
    added++
  }
}
if (added > 0) {
  lockfile.packages = Object.fromEntries(
    Object.entries(packages).sort(([one], [other]) => one.localeCompare(other, 'en')),
  )
  writeFileSync(path, `${JSON.stringify(lockfile, null, 2)}\n`)
}
console.log(`${added} packages of other platforms added to package-lock.json`)
