/** config.json -> the graph it describes. MODEL_CONFIG (exit 65) names the file, the key, what was expected and what is there. */
import { PithError } from '../../core/errors.js';
import { parseBert } from './bert.js';
import { parseGpt2 } from './gpt2.js';
import { parseGemma3, parseLlama } from './llama.js';
import { parseOpt } from './opt.js';
import { configError, type ConfigSource } from './read.js';
import { LLAMA_TYPES, type AnyModelConfig, type BaseConfig, type BertConfig, type CausalConfig } from './types.js';
import { parseVit } from './vit.js';
import { parseWhisper } from './whisper.js';

const PARSERS: ReadonlyMap<string, (source: ConfigSource) => AnyModelConfig> = new Map([
  ...LLAMA_TYPES.map((type) => [type, (source: ConfigSource): AnyModelConfig => parseLlama(source, type)] as const),
  ['gemma3', parseGemma3],
  ['gpt2', parseGpt2],
  ['opt', parseOpt],
  ['bert', parseBert],
  ['vit', parseVit],
  ['whisper', parseWhisper],
]);

/** `model_type` values whose forward pass pith knows. */
export const MODEL_TYPES: readonly string[] = [...PARSERS.keys()];

function sourceOf(document: unknown, file: string): ConfigSource {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw new PithError('MODEL_CONFIG', { file, key: '', expected: 'an object', got: JSON.stringify(document) });
  }
  return { file, at: '', document: document as Record<string, unknown> };
}

/** The config of a known `model_type`; undefined for another one, or none. */
export function parseModelConfig(document: unknown, file: string): AnyModelConfig | undefined {
  const source = sourceOf(document, file);
  const type = source.document['model_type'];
  return typeof type === 'string' ? PARSERS.get(type)?.(source) : undefined;
}

/** The same for what must be run: MODEL_CONFIG for a `model_type` that is not known. */
export function requireModelConfig(document: unknown, file: string): AnyModelConfig {
  const config = parseModelConfig(document, file);
  if (config === undefined) throw configError(sourceOf(document, file), 'model_type', `one of ${MODEL_TYPES.join(', ')}`);
  return config;
}

const isCausal = (c: AnyModelConfig): c is CausalConfig => c.family === 'llama' || c.family === 'gpt2' || c.family === 'opt';
const DECODERS = 'a decoder (llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, gpt2, opt)';
const ENCODERS = 'a text encoder (bert)';

/** The same for what predicts next tokens. */
export function requireCausalConfig(document: unknown, file: string): CausalConfig {
  const config = requireModelConfig(document, file);
  if (isCausal(config)) return config;
  throw configError(sourceOf(document, file), 'model_type', DECODERS);
}

/** The same for what makes vectors of texts. */
export function requireEncoderConfig(document: unknown, file: string): BertConfig {
  const config = requireModelConfig(document, file);
  if (config.family === 'bert') return config;
  throw configError(sourceOf(document, file), 'model_type', ENCODERS);
}

/** The same for either. */
export function requireTextConfig(document: unknown, file: string): CausalConfig | BertConfig {
  const config = requireModelConfig(document, file);
  if (isCausal(config) || config.family === 'bert') return config;
  throw configError(sourceOf(document, file), 'model_type', `${DECODERS} or ${ENCODERS}`);
}

/** What the graph's tensors begin with in a checkpoint; undefined when it holds no tensor of the graph. */
export function namePrefix(config: Pick<BaseConfig, 'names'>, has: (tensor: string) => boolean): string | undefined {
  return config.names.prefixes.find((prefix) => has(prefix + config.names.probe));
}
