/** Training configs under the key names of axolotl, and of mlx-lm as aliases -> flags of `pith finetune`. */
import { PithError } from '../core/errors.js';

type Translate = (value: unknown) => Record<string, unknown>;
const to =
  (flag: string): Translate =>
  (v) => ({ [flag]: v });
const nothing: Translate = () => ({});
const set =
  (name: string): Translate =>
  (v) => ({ set: { [name]: v } });
const record = (v: unknown): Record<string, unknown> => (typeof v === 'object' && v !== null ? (v as Record<string, unknown>) : {});

const KEYS: Readonly<Record<string, Translate>> = {
  // axolotl
  base_model: nothing,
  adapter: (v) => ({ method: v === null || v === '' ? 'full' : v }),
  lora_r: to('rank'),
  lora_alpha: to('alpha'),
  lora_dropout: to('dropout'),
  lora_target_modules: (v) => ({ target: Array.isArray(v) ? v : [v] }),
  lora_target_linear: (v) => (v === true ? { target: ['all-linear'] } : {}),
  peft_use_dora: (v) => (v === true ? { method: 'dora' } : {}),
  peft_use_rslora: (v) => (v === true ? { method: 'rslora' } : {}),
  loraplus_lr_ratio: (v) => ({ method: 'lora-plus', ...set('ratio')(v) }),
  datasets: (v) => ({ data: record((v as unknown[])[0])['path'] }),
  sequence_len: to('seqlen'),
  sample_packing: to('packing'),
  train_on_inputs: to('train-on-inputs'),
  micro_batch_size: to('batch-size'),
  gradient_accumulation_steps: to('grad-accumulation'),
  num_epochs: to('epochs'),
  max_steps: to('steps'),
  learning_rate: to('learning-rate'),
  lr_scheduler: to('schedule'),
  warmup_steps: to('warmup'),
  warmup_ratio: to('warmup'),
  optimizer: (v) => ({ optimizer: OPTIMIZER_NAMES[v as string] ?? v }),
  weight_decay: to('weight-decay'),
  max_grad_norm: to('clip'),
  val_set_size: to('val-split'),
  eval_steps: to('eval-every'),
  save_steps: to('save-every'),
  early_stopping_patience: to('patience'),
  output_dir: to('out'),
  gradient_checkpointing: nothing,
  // mlx-lm
  model: nothing,
  train: nothing,
  fine_tune_type: to('method'),
  iters: to('steps'),
  adapter_path: to('out'),
  max_seq_length: to('seqlen'),
  mask_prompt: (v) => ({ 'train-on-inputs': v !== true }),
  grad_checkpoint: nothing,
  steps_per_eval: to('eval-every'),
  lora_parameters: (v) => {
    const { rank, scale, dropout, keys } = record(v);
    return {
      ...(rank === undefined ? {} : { rank }),
      // mlx-lm multiplies by scale itself
      ...(typeof scale === 'number' && typeof rank === 'number' ? { alpha: scale * rank } : {}),
      ...(dropout === undefined ? {} : { dropout }),
      ...(Array.isArray(keys) ? { target: keys } : {}),
    };
  },
};

/** axolotl's and transformers' spellings. */
const OPTIMIZER_NAMES: Readonly<Record<string, string>> = { adamw_torch: 'adamw', adamw_torch_fused: 'adamw', adam: 'adamw', lion_pytorch: 'lion' };

export const CONFIG_KEYS: readonly string[] = Object.keys(KEYS);

/** Keys that are flags already stay as they are. */
export function translateFinetune(config: Readonly<Record<string, unknown>>, file: string): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const translate = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
    if (value === null && key !== 'adapter') continue;
    if (key === 'datasets' && (!Array.isArray(value) || value.length !== 1))
      throw new PithError('USAGE', { message: `${file}: datasets: expected a list of one` });
    for (const [flag, v] of Object.entries(translate?.(value) ?? { [key]: value })) {
      out[flag] = flag === 'set' ? { ...record(out['set']), ...record(v) } : v;
    }
  }
  return out;
}
