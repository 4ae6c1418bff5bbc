import type { MemoryBlock, MemoryRequest, PageProvider, ProviderCapabilities } from './provider.ts'

/**
 * Memory in pure JavaScript: one resizable `ArrayBuffer` for each block. `resize(0)` gives its memory to the system at
 * once, where an ordinary `ArrayBuffer` would wait for the garbage collector. Works on every Node and in browsers.
 */
export class ResizableProvider implements PageProvider {
  readonly name = 'resizable'
  readonly capabilities: ProviderCapabilities = Object.freeze({
    swappable: true,
    movable: true,
    shareable: false,
    pageExactRelease: false,
  })

  probe(): boolean {
    return typeof ArrayBuffer.prototype.resize === 'function'
  }

  get(_order: number, request: MemoryRequest): MemoryBlock | undefined {
    try {
      const buffer = new ArrayBuffer(request.lengthBytes, { maxByteLength: request.lengthBytes })
      markAsUntransferable?.(buffer)
      for (const method of ['resize', 'transfer', 'transferToFixedLength']) {
        Object.defineProperty(buffer, method, { value: refuseChange })
      }
      return { bytes: new Uint8Array(buffer) }
    } catch (failure) {
      // V8 says RangeError when the address space or the memory is used up; anything else is a defect.
      if (failure instanceof RangeError) return undefined
      throw failure
    }
  }

  put(block: MemoryBlock): void {
    const buffer = block.bytes.buffer as ArrayBuffer
    // Whoever detached it all the same has its memory now.
    if (!buffer.detached) ArrayBuffer.prototype.resize.call(buffer, 0)
  }
}

/** Stands in for the methods of a buffer by which the holder of a view could take the memory away from all others. */
function refuseChange(): never {
  throw new TypeError('this memory belongs to a pool; it cannot be resized or transferred')
}

// Without the mark a user's transfer list could take a chunk away from the pool. Other runtimes have no such list.
const markAsUntransferable = nodeModule('node:worker_threads')?.['markAsUntransferable'] as
  | ((object: object) => void)
  | undefined

/** A module of Node where there is Node, without an import that a bundler for another runtime would trip over. */
export function nodeModule(name: string): Record<string, unknown> | undefined {
  const host = (globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } }).process
  return host?.getBuiltinModule?.(name) as Record<string, unknown> | undefined
}
