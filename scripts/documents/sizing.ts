/** The formulas of docs/guides/sizing-and-cost.md. Bytes, requests and US dollars at the prices of S3 Standard. */

const GiB = 2 ** 30
const prices = { putOrListPer1000: 0.005, getPer1000: 0.0004, gibibyteMonth: 0.023 }

/** Bytes of tables of a pool with so much stored: an entry of 8 bytes for each block, and one for each page where pages are single. */
export function tableBytes(dataBytes: number, blockBytes: number): number {
  return 8 * Math.ceil(dataBytes / blockBytes)
}

/** Requests that move so many bytes in whole segments, one way. */
export function segmentRequests(dataBytes: number, segmentBytes: number): number {
  return Math.ceil(dataBytes / segmentBytes)
}

/** Renewals of the lease of one scratch store in an hour. */
export function renewalsPerHour(leaseMs: number): number {
  return 3_600_000 / (leaseMs / 3)
}

/** Pages of a listing with so many objects. */
export function listRequests(objects: number): number {
  return Math.ceil(objects / 1000)
}

/** Data that is spread evenly over processes, each of which writes its share once and reads it twice within an hour. */
export interface Deployment {
  readonly dataBytes: number
  readonly processes: number
}

export interface Cost {
  readonly shareBytes: number
  readonly tableBytesPerProcess: number
  readonly puts: number
  readonly gets: number
  readonly leasePuts: number
  /** To list all objects once. */
  readonly lists: number
  readonly dollars: number
  readonly storageDollarsPerMonth: number
  /** Bytes a second that all gateways together have to carry. */
  readonly gatewayBytesPerSecond: number
}

/** What an hour costs, with chunks of 2 MiB, segments of 8 MiB and leases of two minutes. */
export function costOf({ dataBytes, processes }: Deployment): Cost {
  const shareBytes = dataBytes / processes
  const puts = processes * segmentRequests(shareBytes, 8 * 2 ** 20)
  const gets = 2 * puts
  const leasePuts = processes * renewalsPerHour(120_000)
  const requestDollars = ((puts + leasePuts) * prices.putOrListPer1000 + gets * prices.getPer1000) / 1000
  return {
    shareBytes,
    tableBytesPerProcess: tableBytes(shareBytes, 2 * 2 ** 20),
    puts,
    gets,
    leasePuts,
    lists: listRequests(puts),
    dollars: requestDollars,
    storageDollarsPerMonth: (dataBytes / GiB) * prices.gibibyteMonth,
    gatewayBytesPerSecond: (3 * dataBytes) / 3600,
  }
}

const deployments: readonly Deployment[] = [
  { dataBytes: GiB, processes: 1 },
  { dataBytes: 100 * GiB, processes: 1 },
  { dataBytes: 1024 * GiB, processes: 1 },
  { dataBytes: 1024 * GiB, processes: 100 },
  { dataBytes: 100 * 1024 * GiB, processes: 1000 },
  { dataBytes: 2 ** 20 * GiB, processes: 10_000 },
]

function inUnits(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  const power = bytes === 0 ? 0 : Math.min(5, Math.floor(Math.log2(bytes) / 10))
  return `${Number((bytes / 1024 ** power).toPrecision(3))} ${units[power]}`
}

/** The rows of the guide's table. */
export function costRows(): string[] {
  return deployments.map((deployment) => {
    const cost = costOf(deployment)
    return `| ${[
      inUnits(deployment.dataBytes),
      deployment.processes.toLocaleString('en'),
      inUnits(cost.shareBytes),
      inUnits(cost.tableBytesPerProcess),
      cost.puts.toLocaleString('en'),
      cost.gets.toLocaleString('en'),
      cost.leasePuts.toLocaleString('en'),
      cost.lists.toLocaleString('en'),
      String(Number(cost.dollars.toPrecision(2))),
      Math.round(cost.storageDollarsPerMonth).toLocaleString('en'),
      `${inUnits(cost.gatewayBytesPerSecond)}/s`,
    ].join(' | ')} |`
  })
}
