/** What a peer is opened with. */
export interface PeerSettings {
  /** An empty directory for it alone. */
  readonly directory: string
  /** How much of the data it may keep in memory. */
  readonly limitBytes: number
  readonly bufferBytes: number
  readonly bufferCount: number
  /** What the workload touches at a time: the peer keeps and moves pieces of this size. */
  readonly unitBytes: number
  /** Where the package of the peer is installed. */
  readonly packageDirectory: string | undefined
}
