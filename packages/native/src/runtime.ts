/** The oldest Node on which Spillway is tried. */
const oldestNodeVersion = '22.19'

/** Throws where this package cannot run, so that importing it says why in one sentence. */
function assertSupportedNode(): void {
  const version = process.versions.node
  const [oldestMajor, oldestMinor] = oldestNodeVersion.split('.').map(Number)
  const [major, minor] = version.split('.').map(Number)
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return
  throw new Error(`Spillway needs Node.js ${oldestNodeVersion} or later; this is ${version}`)
}

assertSupportedNode()

/** Bun and Deno run these packages as well, and lack some of what Node has. */
export function otherRuntime(): 'Bun' | 'Deno' | undefined {
  if (process.versions['bun'] !== undefined) return 'Bun'
  return process.versions['deno'] === undefined ? undefined : 'Deno'
}

/** A variable of the environment; `undefined` as well where the process may not look (Deno asks for a permission). */
export function environmentValue(name: string): string | undefined {
  try {
    return process.env[name]
  } catch {
    return undefined
  }
}
