import { type FileContent, sectorBytes } from './file-content.ts'
import { LosingFile } from './losing-file.ts'

/** What is read next after what was read so far, and where that leads by what it has; at the end the answer. */
type Step<Answer> =
  | { readonly sector: number; readonly next: Map<string, Step<Answer>> }
  | { readonly answer: Answer }

/**
 * Answers to one question about file contents, by what was read to find them. Whoever asks does nothing but what follows from what he
 * reads; so a content that has the same in all of those places has the same answer, and is not asked again. Bytes are compared, whole,
 * and no answer is taken for that of a content in which anything that was read is different.
 */
export class ReadTree<Answer> {
  readonly #ask: (file: LosingFile) => Promise<Answer>
  #first: Step<Answer> | undefined
  #answers = 0

  constructor(ask: (file: LosingFile) => Promise<Answer>) {
    this.#ask = ask
  }

  /** How many contents were asked: each differs from each other in what is read of it. */
  get answers(): number {
    return this.#answers
  }

  async answerOf(content: FileContent): Promise<Answer> {
    let step = this.#first
    while (step !== undefined && 'next' in step) step = step.next.get(content.sectorAt(step.sector).key)
    if (step !== undefined) return step.answer
    const file = new WatchedFile({ start: content })
    const answer = await this.#ask(file)
    this.#add(content, [...file.sectorsRead], answer)
    return answer
  }

  #add(content: FileContent, sectors: readonly number[], answer: Answer): void {
    this.#answers++
    const way: { readonly sector: number; readonly next: Map<string, Step<Answer>> }[] = []
    let step = this.#first
    for (const sector of sectors) {
      if (step === undefined) break
      if (!('next' in step) || step.sector !== sector) throw otherwiseRead()
      way.push(step)
      step = step.next.get(content.sectorAt(sector).key)
    }
    if (step !== undefined) throw otherwiseRead()
    // From the answer back, so that each step is made with what follows.
    let made: Step<Answer> = { answer }
    for (const sector of sectors.slice(way.length).reverse())
      made = { sector, next: new Map([[content.sectorAt(sector).key, made]]) }
    const last = way.at(-1)
    if (last === undefined) this.#first = made
    else last.next.set(content.sectorAt(last.sector).key, made)
  }
}

function otherwiseRead(): Error {
  return new Error('other places were read after the same bytes')
}

/** Notes which sectors are read, in the order in which each of them is read first. */
class WatchedFile extends LosingFile {
  readonly sectorsRead = new Set<number>()

  override read(into: Uint8Array, offsetBytes: number): Promise<number> {
    const end = Math.ceil((offsetBytes + into.byteLength) / sectorBytes)
    for (let sector = Math.floor(offsetBytes / sectorBytes); sector < end; sector++)
      this.sectorsRead.add(sector)
    return super.read(into, offsetBytes)
  }
}
