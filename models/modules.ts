/** Checkpoint tensors -> the modules of the model in memory: their paths, kinds, and which weight lies the other way round. */
import type { TensorInfo } from '../core/tensor.js';
import { roleOf } from './roles.js';

/** What of a checkpoint's config.json decides names. */
export interface ModelConfig {
  readonly modelType?: string;
  readonly architecture?: string;
  readonly tied: boolean;
}

export interface ModelModule {
  /** Path in memory, as adapters name it. */
  readonly path: string;
  readonly kind: 'embedding' | 'head' | 'linear' | 'other';
  /** Names of the tensors in the checkpoint. */
  readonly weight: string;
  readonly bias?: string;
  /** (in, out) instead of (out, in). */
  readonly conv1d: boolean;
}

/** Path prefix that checkpoints of these types leave out, and how such names start. */
const SHORT_NAMES: Readonly<Record<string, { readonly prefix: string; readonly start: RegExp }>> = {
  gpt2: { prefix: 'transformer.', start: /^(h|wte|wpe|ln_f)\./ },
  bloom: { prefix: 'transformer.', start: /^(h|word_embeddings|word_embeddings_layernorm|ln_f)\./ },
  opt: { prefix: 'model.', start: /^decoder\./ },
};
/** transformers' Conv1D layers: weight (in, out). */
const CONV1D_TYPES = new Set(['gpt2', 'openai-gpt', 'imagegpt', 'decision_transformer']);
const CONV1D = /\.(c_attn|c_proj|c_fc|q_attn)$/;

export function modelConfig(document: unknown): ModelConfig {
  const d = (typeof document === 'object' && document !== null ? document : {}) as Record<string, unknown>;
  const architectures = Array.isArray(d['architectures']) ? (d['architectures'] as unknown[]) : [];
  return {
    ...(typeof d['model_type'] === 'string' ? { modelType: d['model_type'] } : {}),
    ...(typeof architectures[0] === 'string' ? { architecture: architectures[0] } : {}),
    tied: d['tie_word_embeddings'] === true || (d['tie_word_embeddings'] === undefined && d['model_type'] === 'gpt2'),
  };
}

export const isConv1d = (path: string, config: ModelConfig): boolean => CONV1D_TYPES.has(config.modelType ?? '') && CONV1D.test(path);

/** Path in memory of a checkpoint's module name. */
function inMemory(name: string, config: ModelConfig): string {
  const short = SHORT_NAMES[config.modelType ?? ''];
  return short?.start.test(`${name}.`) === true ? short.prefix + name : name;
}

/** Every module with a `.weight`, in checkpoint order; the rest (buffers, stacked experts) is `others`. */
export function modulesOf(infos: ReadonlyMap<string, TensorInfo>, config: ModelConfig): { modules: ModelModule[]; others: string[] } {
  const modules: ModelModule[] = [];
  const taken = new Set<string>();
  for (const info of infos.values()) {
    if (!info.name.endsWith('.weight')) continue;
    const name = info.name.slice(0, -'.weight'.length);
    const bias = infos.has(`${name}.bias`) ? `${name}.bias` : undefined;
    const path = inMemory(name, config);
    const role = roleOf(info);
    // a convolution is no matrix product of one input
    const kind = role === 'linear' && info.shape.length !== 2 ? 'other' : role;
    modules.push({ path, kind, weight: info.name, ...(bias === undefined ? {} : { bias }), conv1d: isConv1d(path, config) });
    taken.add(info.name);
    if (bias !== undefined) taken.add(bias);
  }
  return { modules, others: [...infos.keys()].filter((name) => !taken.has(name)) };
}

/** The output head that shares the embedding's weight and is in no file, for models that have one. */
export function tiedHead(modules: readonly ModelModule[], config: ModelConfig): ModelModule | undefined {
  if (!config.tied || modules.some((m) => m.kind === 'head')) return undefined;
  const embedding = modules.find((m) => m.kind === 'embedding' && /(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|shared)$/.test(m.path));
  if (embedding === undefined || !/(ForCausalLM|LMHeadModel|ForConditionalGeneration)$/.test(config.architecture ?? '')) return undefined;
  return { path: config.modelType === 'gpt_neox' ? 'embed_out' : 'lm_head', kind: 'head', weight: embedding.weight, conv1d: false };
}

/** The checkpoint's tensor of a module that an adapter names: by its own path, or with the prefix that the file leaves out or adds. */
export function findTensor(infos: ReadonlyMap<string, TensorInfo>, path: string, suffix: string): TensorInfo | undefined {
  const rest = path.slice(path.indexOf('.') + 1);
  for (const candidate of [path, rest, `model.${path}`, `transformer.${path}`]) {
    const info = infos.get(`${candidate}.${suffix}`);
    if (info !== undefined) return info;
  }
  return undefined;
}

/**
 * Names for target_modules (`whole` path parts) or modules_to_save (any ending, as peft matches those) that select exactly
 * `chosen` of `all` paths: the last part alone where every path that ends so is chosen, full paths elsewhere. Sorted.
 */
export function shortestNames(chosen: readonly string[], all: readonly string[], match: 'whole' | 'ending'): string[] {
  const wanted = new Set(chosen);
  const paths = [...new Set([...all, ...chosen])];
  const covers = new Map<string, boolean>();
  const exact = (leaf: string): boolean => {
    const ends = (p: string): boolean => (match === 'ending' ? p.endsWith(leaf) : p === leaf || p.endsWith(`.${leaf}`));
    return paths.every((p) => !ends(p) || wanted.has(p));
  };
  const names = [...wanted].map((path) => {
    const leaf = path.slice(path.lastIndexOf('.') + 1);
    if (!covers.has(leaf)) covers.set(leaf, exact(leaf));
    return covers.get(leaf)! ? leaf : path;
  });
  return [...new Set(names)].sort();
}
