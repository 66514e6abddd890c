/** `pith adapter lint`: would a target load this adapter, and mean the same by it? Fits what only ranks, scales and names stand against. */
import type { Pipeline } from '../core/events.js';
import { elementCount } from '../core/shape.js';
import { Adapter, type LoraModule } from '../formats/adapter/adapter.js';
import { matchesWithin } from '../formats/adapter/pattern.js';
import { modulesOf, shortestNames } from '../models/modules.js';
import { openAny } from '../workers/open.js';
import { readModelConfig } from '../workers/adapted-reader.js';
import { adapterResize, type ResizeReport } from './adapter-resize.js';
import { planFuse } from '../workers/fuse-plan.js';
import type { RunOptions } from './run-options.js';

export const LINT_TARGETS = ['peft', 'vllm', 'llama.cpp', 'mlx'] as const;
export type LintTarget = (typeof LINT_TARGETS)[number];

export interface LintOptions extends RunOptions {
  readonly adapter: string;
  readonly target: LintTarget;
  /** Checked against it as well: every module must be there and fit. */
  readonly base?: string;
  /** Largest rank that the target takes. */
  readonly maxRank?: number;
  /** Write an adapter that fits. */
  readonly out?: string;
  readonly force: boolean;
  readonly dryRun: boolean;
}

export interface Finding {
  readonly severity: 'error' | 'warning';
  readonly code: string;
  readonly message: string;
  /** How many modules or tensors, and the first. */
  readonly count?: number;
  readonly first?: string;
  /** `--out` writes an adapter without it. */
  readonly fixable: boolean;
}

export interface LintReport {
  readonly adapter: string;
  readonly target: LintTarget;
  readonly ok: boolean;
  readonly rank: number;
  readonly modules: number;
  readonly findings: readonly Finding[];
  readonly fitted?: ResizeReport;
}

/** vLLM's choices for --max-lora-rank, and its default (vllm/config/lora.py, 0.27). */
const VLLM_RANKS = [1, 8, 16, 32, 64, 128, 256, 320, 512];
const VLLM_DEFAULT_RANK = 16;

interface Subject {
  readonly adapter: Adapter;
  readonly modules: readonly LoraModule[];
  /** Largest rank. */
  readonly rank: number;
  readonly cap: number | undefined;
  /** All module paths of the base, where one was given. */
  readonly paths: readonly string[] | undefined;
  readonly found: Finding[];
}

export async function* adapterLint(o: LintOptions): Pipeline<LintReport> {
  using adapter = Adapter.open(o.adapter);
  const modules = [...adapter.modules.values()];
  const rank = Math.max(0, ...modules.map((m) => m.rank));
  const s: Subject = { adapter, modules, rank, cap: capOf(o), paths: await basePaths(o, adapter), found: [] };
  everywhere(s);
  CHECKS[o.target](s);
  const blocked = s.found.some((f) => f.severity === 'error' && !f.fixable);
  const report: LintReport = {
    adapter: o.adapter,
    target: o.target,
    ok: s.found.every((f) => f.severity === 'warning'),
    rank,
    modules: modules.length,
    findings: s.found,
  };
  if (o.out === undefined || blocked || o.dryRun) return report;
  return { ...report, ok: true, fitted: yield* adapterResize({ ...o, out: o.out, ...fitting(o, s) }) };
}

function capOf(o: LintOptions): number | undefined {
  return o.maxRank ?? (o.target === 'vllm' ? VLLM_RANKS.at(-1) : undefined);
}

/** ADAPTER_BASE (65) when a module is not in the base or does not fit. */
async function basePaths(o: LintOptions, adapter: Adapter): Promise<string[] | undefined> {
  if (o.base === undefined) return undefined;
  await using base = await openAny(o.base);
  const config = await readModelConfig(base);
  planFuse(base, adapter, config, undefined);
  return modulesOf(base.infos, config).modules.map((m) => m.path);
}

function add(s: Subject, code: string, message: string, names: readonly string[] = [], options: { fixable?: boolean; warning?: boolean } = {}): void {
  const many = names.length === 0 ? {} : { count: names.length, first: names[0]! };
  s.found.push({ severity: options.warning === true ? 'warning' : 'error', code, message, ...many, fixable: options.fixable ?? false });
}

const pathsOf = (modules: readonly LoraModule[]): string[] => modules.map((m) => m.path);

/** The shorter side of the weight: an update has no more components. */
const sideOf = (m: LoraModule): number => Math.min(m.b.shape[0]!, elementCount(m.a.shape.slice(1)));

function everywhere(s: Subject): void {
  const wasteful = s.modules.filter((m) => m.rank > sideOf(m));
  if (wasteful.length > 0) add(s, 'rank-above-sides', 'the rank is larger than a side of the weight', pathsOf(wasteful), { fixable: true, warning: true });
  if (s.cap !== undefined && s.rank > s.cap) {
    const above = s.modules.filter((m) => m.rank > s.cap!);
    add(s, 'rank-cap', `rank ${s.rank} is above ${s.cap}`, pathsOf(above), { fixable: true });
  }
}

const CHECKS: Readonly<Record<LintTarget, (s: Subject) => void>> = { peft, vllm, 'llama.cpp': llamaCpp, mlx };

function peft(s: Subject): void {
  const { config } = s.adapter;
  const start = config.initLoraWeights;
  if (typeof start === 'string' && /^(pissa|olora|corda|loftq|lora_ga)/.test(start)) {
    add(s, 'moved-base', `init_lora_weights "${start}": loading changes the base again, or needs one that was saved changed`);
  }
  const uncovered = s.modules.filter((m) => !targeted(config.targetModules, m.path));
  if (uncovered.length > 0) add(s, 'not-targeted', 'target_modules does not select it: its tensors would be ignored', pathsOf(uncovered), { fixable: true });
  const missing = (s.paths ?? []).filter((p) => Array.isArray(config.targetModules) && targeted(config.targetModules, p) && !s.adapter.modules.has(p));
  if (missing.length > 0) add(s, 'missing-keys', 'target_modules selects it, but the adapter holds nothing for it', missing, { fixable: true });
}

/** As peft selects: a list by whole path parts, a text as an expression over the whole path. */
function targeted(target: readonly string[] | string | null, path: string): boolean {
  if (target === null || target === 'all-linear') return true;
  if (typeof target === 'string') return matchesWithin(`^(?:${target})$`, path) ?? false;
  return target.some((name) => path === name || path.endsWith(`.${name}`));
}

/** Full copies, DoRA and biases that a server for plain LoRA does not take. */
function plainOnly(s: Subject, target: string, allowed: (name: string) => boolean, dora: boolean): void {
  const saved = [...s.adapter.saved.keys()].filter((name) => !allowed(name));
  if (saved.length > 0) add(s, 'modules-to-save', `${target} takes no full copies of modules; merge the adapter instead`, saved);
  if (s.adapter.config.useDora && !dora) add(s, 'dora', `${target} does not take DoRA; merge the adapter instead`);
  if (s.adapter.config.loraBias) add(s, 'lora-bias', `${target} takes no bias in an adapter; merge it instead`);
  const convolutions = s.modules.filter((m) => m.a.shape.length > 2);
  if (convolutions.length > 0) add(s, 'convolution', `${target} adapts linear layers only`, pathsOf(convolutions));
}

function vllm(s: Subject): void {
  const { config } = s.adapter;
  plainOnly(s, 'vLLM', () => false, false);
  if (config.bias !== 'none') add(s, 'bias', `vLLM takes no bias in an adapter, the config says "${config.bias}"`);
  // one scale for all modules, from the config's own rank
  const scale = config.useRslora ? config.alpha / Math.sqrt(config.r) : config.alpha / config.r;
  const others = s.modules.filter((m) => !close(m.scaling, scale));
  if (others.length > 0) add(s, 'scale', `vLLM scales every module by ${scale}, it does not read alpha_pattern`, pathsOf(others), { fixable: true });
  const rank = Math.min(s.rank, s.cap ?? s.rank);
  const needed = VLLM_RANKS.find((r) => r >= rank);
  if (rank > VLLM_DEFAULT_RANK && needed !== undefined) {
    add(s, 'max-lora-rank', `start vLLM with --max-lora-rank ${needed}: its default is ${VLLM_DEFAULT_RANK}`, [], { warning: true });
  }
  const embeddings = s.modules.filter((m) => m.embedding);
  if (embeddings.length > 0) add(s, 'embedding', 'only some models of vLLM take factors of embeddings', pathsOf(embeddings), { warning: true });
}

function llamaCpp(s: Subject): void {
  const { config } = s.adapter;
  // convert_lora_to_gguf.py passes norms on and leaves base_layer weights out
  plainOnly(s, 'llama.cpp', (name) => /_layernorm|\.norm/.test(name), false);
  // llama.cpp: alpha of the config over the tensor's own rank
  const others = s.modules.filter((m) => !close(m.scaling, config.alpha / m.rank));
  if (others.length > 0) {
    add(s, 'scale', 'llama.cpp scales by lora_alpha / rank of the tensor, it reads neither alpha_pattern nor use_rslora', pathsOf(others), { fixable: true });
  }
}

function mlx(s: Subject): void {
  plainOnly(s, 'mlx_lm', () => false, true);
  add(s, 'layout', "mlx_lm reads adapters.safetensors with lora_a and lora_b, not peft's names", [], { fixable: true });
  if (s.modules.some((m) => m.rank !== s.rank)) {
    const others = s.modules.filter((m) => m.rank !== s.rank);
    add(s, 'ranks', 'mlx_lm has one rank for all modules', pathsOf(others), { fixable: true });
  }
  const scale = s.modules[0]?.scaling ?? 1;
  const others = s.modules.filter((m) => !close(m.scaling, scale));
  if (others.length > 0) add(s, 'scale', 'mlx_lm has one scale for all modules', pathsOf(others), { fixable: true });
}

const close = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-6 * Math.abs(b);

/** Ranks within the cap and the weights' own sides, one for all where the target has only one, names and scales as it reads them. */
function fitting(o: LintOptions, s: Subject) {
  const needed = Math.max(1, ...s.modules.map((m) => Math.min(m.rank, sideOf(m))));
  const maxRank = Math.min(needed, s.cap ?? Infinity);
  const uniform = o.target === 'mlx' || (o.target === 'llama.cpp' && s.found.some((f) => f.code === 'scale'));
  const paths = pathsOf(s.modules);
  return {
    rule: { maxRank },
    ...(uniform ? { uniformRank: maxRank } : {}),
    ...(o.target === 'mlx' ? { layout: 'mlx' as const } : {}),
    ...(o.target === 'peft' ? { targetModules: shortestNames(paths, s.paths ?? paths, 'whole') } : {}),
  };
}
