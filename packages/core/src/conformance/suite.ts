import type { BackupSuiteOptions } from './options.ts'
import { Subject } from './subject.ts'

/** What a concern gets to register its tests with. */
export interface Suite {
  readonly options: BackupSuiteOptions
  /** Opens an empty backup for each test and closes it afterwards. Default capacity: 64 pages. */
  test(name: string, body: (subject: Subject) => Promise<void>, capacityPages?: number): void
  /** Opens one more, for tests that need two; the test closes it. */
  open(capacityPages?: number): Promise<Subject>
}

const defaultCapacityPages = 64

export function createSuite(options: BackupSuiteOptions): Suite {
  const open = async (capacityPages = defaultCapacityPages): Promise<Subject> =>
    new Subject(await options.open({ capacityPages }), capacityPages, options.memory)
  return {
    options,
    open,
    test(name, body, capacityPages) {
      options.it(name, async () => {
        const subject = await open(capacityPages)
        try {
          await body(subject)
        } finally {
          await subject.backup.close()
        }
      })
    },
  }
}
