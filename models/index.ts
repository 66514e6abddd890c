/** The graphs: model_type -> file. Several types share a graph, whose variants the config names (config/llama.ts). */
import type { Bert } from './bert.js';
import type { CausalModel } from './causal.js';
import type { AnyModelConfig, BertConfig, CausalConfig, VitConfig, WhisperConfig } from './config/types.js';
import type { BlockModel, TokenModel } from './graph.js';
import { checkTensors, type TensorTable } from './tensors.js';
import type { Vit } from './vit.js';
import type { Whisper } from './whisper.js';

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

/** A graph whose tensors all fit the checkpoint: TENSOR_MISSING, SHAPE_MISMATCH (65) otherwise. */
function checked<M extends BlockModel>(model: M, table: TensorTable): M {
  checkTensors(model, table);
  return model;
}

/** The graph of a config over a checkpoint whose tensors all fit it: TENSOR_MISSING, SHAPE_MISMATCH (65) otherwise. Loads tfjs. */
export async function causalModel(config: CausalConfig, table: TensorTable): Promise<CausalModel> {
  const build = await CAUSAL[config.modelType]!();
  return checked(build(config as never, table), table);
}

/** The same for text encoders. */
export async function bertModel(config: BertConfig, table: TensorTable): Promise<Bert> {
  const { Bert } = await import('./bert.js');
  return checked(new Bert(config, table), table);
}

/** The same for what reads tokens, causal or not. */
export async function tokenModel(config: CausalConfig | BertConfig, table: TensorTable): Promise<TokenModel> {
  return config.family === 'bert' ? bertModel(config, table) : causalModel(config, table);
}

/** The same for images. */
export async function vitModel(config: VitConfig, table: TensorTable): Promise<Vit> {
  const { Vit } = await import('./vit.js');
  return checked(new Vit(config, table), table);
}

/** The same for speech. */
export async function whisperModel(config: WhisperConfig, table: TensorTable): Promise<Whisper> {
  const { Whisper } = await import('./whisper.js');
  const model = new Whisper(config, table);
  checked(model.encoder, table);
  checked(model.decoder, table);
  return model;
}

/** Every stack of blocks of any graph, in the order in which they run: what has linears to calibrate and to compress. */
export async function stacksOf(config: AnyModelConfig, table: TensorTable): Promise<readonly BlockModel[]> {
  switch (config.family) {
    case 'bert':
      return [await bertModel(config, table)];
    case 'vit':
      return [await vitModel(config, table)];
    case 'whisper': {
      const { encoder, decoder } = await whisperModel(config, table);
      return [encoder, decoder];
    }
    default:
      return [await causalModel(config, table)];
  }
}
