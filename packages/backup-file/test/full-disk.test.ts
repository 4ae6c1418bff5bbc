import { expect, it } from 'vitest'
import { runChild } from './children.ts'
import { scratchDirectory } from './places.ts'

// Each child has a mount name space of its own, so that nothing stays mounted whatever happens to it.
const directory = scratchDirectory()
const isRoot = process.getuid?.() === 0
const unshare = isRoot ? 'unshare --mount' : 'unshare --mount --map-root-user'
const small = 14 * 2 ** 20

const shells: Record<string, string> = {
  'a full tmpfs': `${unshare} sh -c 'mount -t tmpfs -o size=${small} none "${directory}" && exec "$@"' sh "$@"`,
  'a file size limit': `ulimit -f ${small / 512}; exec "$@"`,
}
if (isRoot) {
  // Loop devices and ext4 need the real root; elsewhere tmpfs stands for all file systems.
  shells['a full ext4'] =
    `${unshare} sh -c 'truncate -s ${small} "${directory}/disk" && mkfs.ext4 -q -O ^has_journal "${directory}/disk" ` +
    `&& mkdir -p "${directory}/mounted" && mount -o loop "${directory}/disk" "${directory}/mounted" && exec "$@"' sh "$@"`
}

for (const [what, shell] of Object.entries(shells)) {
  it(`${what} gives a prefix and says so, no torn page, through each engine, direct and buffered`, async () => {
    const place = what === 'a full ext4' ? `${directory}/mounted` : directory
    const child = await runChild('fill-disk.ts', [place], { shell })
    const reports = JSON.parse(await child.output)
    expect(reports).toHaveLength(4)
    for (const report of reports) {
      expect(report, JSON.stringify(report)).toMatchObject({
        code: what === 'a file size limit' ? 'EFBIG' : 'ENOSPC',
        wrongPages: 0,
        wrongPagesAfterDrop: 0,
      })
      expect(report.storedPages).toBeGreaterThan(2000)
      expect(report.storedPages * 4096).toBeLessThanOrEqual(small)
      expect(report.storedAfterDrop).toBeGreaterThanOrEqual(report.droppedPages)
    }
  })
}
