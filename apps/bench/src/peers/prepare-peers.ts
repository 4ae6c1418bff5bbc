import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { installPackage } from './install-package.ts'
import type { PeerDescription } from './registry.ts'

/** A peer that can be measured here. */
export interface ReadyPeer {
  readonly peer: PeerDescription
  readonly packageDirectory: string | undefined
}

export interface MissingPeer {
  readonly name: string
  readonly reason: string
}

/** Installs the packages of peers below `directory`, one after the other; tells which peers there are then, and why not the others. */
export async function preparePeers(
  peers: readonly PeerDescription[],
  directory: string,
  signal: AbortSignal,
  onPeer: (name: string) => void,
): Promise<{ readonly ready: readonly ReadyPeer[]; readonly missing: readonly MissingPeer[] }> {
  const ready: ReadyPeer[] = []
  const missing: MissingPeer[] = []
  for (const peer of peers) {
    onPeer(peer.name)
    const packageDirectory = peer.npmPackage && join(directory, 'packages', peer.name)
    const reason =
      peer.npmPackage === undefined
        ? missingFromSystem(peer)
        : await installPackage(peer.npmPackage, packageDirectory!, signal)
    if (reason === undefined) ready.push({ peer, packageDirectory })
    else missing.push({ name: peer.name, reason })
  }
  return { ready, missing }
}

function missingFromSystem({ swap }: PeerDescription): string | undefined {
  if (swap === undefined) return undefined
  if (process.platform !== 'linux') return 'it takes Linux'
  if (process.getuid?.() !== 0) return 'it takes root'
  if (swap === 'zram' && !existsSync('/sys/class/zram-control')) return 'this kernel has no zram'
  return undefined
}
