/** The graphs: model_type -> file. Several types share a graph, whose variants the config names (config/llama.ts). */
import { checkTensors, type CausalModel, type TensorTable } from './causal.js';
import type { CausalConfig } from './config/types.js';

type Build = (config: never, table: TensorTable) => CausalModel;

const llama = async (): Promise<Build> => {
  const { Llama } = await import('./llama.js');
  return (config, table) => new Llama(config, table);
};

const CAUSAL: Readonly<Record<CausalConfig['modelType'], () => Promise<Build>>> = {
  llama,
  mistral: llama,
  qwen2: llama,
  qwen3: llama,
  gemma2: llama,
  gemma3_text: llama,
  phi3: llama,
  gpt2: async () => {
    const { Gpt2 } = await import('./gpt2.js');
    return (config, table) => new Gpt2(config, table);
  },
  opt: async () => {
    const { Opt } = await import('./opt.js');
    return (config, table) => new Opt(config, table);
  },
};

/** The graph of a config over a checkpoint whose tensors all fit it: TENSOR_MISSING, SHAPE_MISMATCH (65) otherwise. Loads tfjs. */
export async function causalModel(config: CausalConfig, table: TensorTable): Promise<CausalModel> {
  const build = await CAUSAL[config.modelType]!();
  const model = build(config as never, table);
  checkTensors(model, table);
  return model;
}
