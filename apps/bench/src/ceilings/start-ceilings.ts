import { MeasuringProcess } from '../measuring-process.ts'
import type { CeilingFindings, CeilingMessage, CeilingOrder } from './measure.ts'

/** Measures the ceilings in a process of its own. What fails there is a note, not a failure: cases can do without. */
export async function startCeilings(
  order: CeilingOrder,
  signal: AbortSignal,
  onStep: (step: string) => void,
): Promise<CeilingFindings> {
  const ceilings = new MeasuringProcess<CeilingOrder, CeilingMessage>('ceilings-process', signal)
  let findings: CeilingFindings | undefined
  let problem = ''
  ceilings.onMessage((message) => {
    if (message.type === 'step') onStep(message.step)
    else if (message.type === 'ceilings') findings = message.findings
    else problem = message.message
  })
  const ending = await ceilings.run(order)
  return findings ?? { rounds: {}, notes: [`the ceilings were not measured: ${problem || ending}`] }
}
