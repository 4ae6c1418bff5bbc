/** Text for HTML, and for attributes in double quotes. */
export function escapeText(text: unknown): string {
  return String(text).replace(
    /[&<>"]/g,
    (mark) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[mark]!,
  )
}

/** A chart under a title; nothing where there is no chart. The caption is HTML. */
export function figure(title: string, chart: string | undefined, caption: string): string {
  if (chart === undefined) return ''
  return `<h2>${escapeText(title)}</h2>\n<figure>${chart}<figcaption>${caption}</figcaption></figure>\n`
}

/** Columns whose title begins with `>` are aligned to the right. Rows are HTML. */
export function table(head: readonly string[], rows: readonly string[]): string {
  const cells = head.map((title) =>
    title.startsWith('>')
      ? `<th class="number">${escapeText(title.slice(1))}</th>`
      : `<th>${escapeText(title)}</th>`,
  )
  return `<div class="scroll"><table><thead><tr>${cells.join('')}</tr></thead><tbody>\n${rows.join('\n')}\n</tbody></table></div>\n`
}
