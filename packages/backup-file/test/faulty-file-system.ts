import type { FileSystem } from '../src/index.ts'

/** The same file system with some of its calls replaced. */
export function faulty(fileSystem: FileSystem, replaced: Partial<FileSystem>): FileSystem {
  return new Proxy(fileSystem, {
    get(target, key) {
      const own = replaced[key as keyof FileSystem]
      if (own !== undefined) return own
      const value: unknown = Reflect.get(target, key)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** A failure of the system as node:fs reports it. */
export function failure(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code })
}
