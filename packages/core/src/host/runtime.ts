/** The oldest Node on which Spillway is tried. */
export const oldestNodeVersion = '22.19'

/** Throws on a Node that is too old, so that importing this package says why in one sentence. Other hosts are not asked. */
function assertSupportedNode(): void {
  const host = (globalThis as { process?: { versions?: { node?: string } } }).process
  const version = host?.versions?.node
  if (version === undefined) return
  const [oldestMajor, oldestMinor] = oldestNodeVersion.split('.').map(Number)
  const [major, minor] = version.split('.').map(Number)
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return
  throw new Error(`Spillway needs Node.js ${oldestNodeVersion} or later; this is ${version}`)
}

assertSupportedNode()

/** A variable of the environment; `undefined` as well where there is none, or the process may not look (Deno asks for a permission). */
export function environmentValue(name: string): string | undefined {
  const host = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process
  try {
    return host?.env?.[name]
  } catch {
    return undefined
  }
}
