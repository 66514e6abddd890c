/** What people and the Hub read about an adapter: its card, and the task it is for. */
import type { ModelConfig } from '../models/modules.js';
import { pithVersion } from '../core/version.js';

const TASKS: readonly (readonly [architecture: RegExp, task: string])[] = [
  [/(ForCausalLM|LMHeadModel)$/, 'CAUSAL_LM'],
  [/ForSequenceClassification$/, 'SEQ_CLS'],
  [/ForTokenClassification$/, 'TOKEN_CLS'],
  [/ForQuestionAnswering$/, 'QUESTION_ANS'],
  [/^(T5|MT5|UMT5|Bart|MBart|Pegasus|Marian|LongT5).*ForConditionalGeneration$/, 'SEQ_2_SEQ_LM'],
];

/** peft's task_type for an architecture, or null. */
export function taskType(config: ModelConfig): string | null {
  return TASKS.find(([r]) => r.test(config.architecture ?? ''))?.[1] ?? null;
}

/** README.md of an extracted adapter. */
export function adapterCard(o: { readonly base: string; readonly tuned: string; readonly rule: { readonly maxRank: number } }, config: ModelConfig): string {
  const lines = ['---', 'library_name: peft', 'tags:', '- lora', '- pith', '---', '', '# LoRA adapter', ''];
  lines.push(`Extracted from \`${o.tuned}\` against \`${o.base}\` at rank ${o.rule.maxRank} at most, by pith ${pithVersion()}.`);
  if (config.modelType !== undefined) lines.push('', `Model type: ${config.modelType}.`);
  return `${lines.join('\n')}\n`;
}
