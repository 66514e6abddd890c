/** Puts the fused kernels beside the wasm backend's own: once a thread, and again when BLAS is switched on or off. */
import * as tf from '#tf';
import type { Blas } from '../backend/blas.js';
import { loadWasmOn } from '../wasm/load.js';
import { attentionKernels } from './attention.js';
import { embeddingKernels } from './embedding.js';
import { frozenLinearKernels } from './frozen-linear.js';
import { gatedKernels } from './gated.js';
import { headLossKernels } from './head-loss.js';
import { Heap, isRegistered, type FusedKernel, type NnExports, type WasmBackend } from './heap.js';
import { inputSumKernels } from './input-sums.js';
import { lowRankKernels } from './low-rank-linear.js';
import { normKernels } from './norm.js';
import { rotaryKernels } from './rotary.js';
import { tokenScoreKernels } from './token-scores.js';
import { weightGradientKernels } from './weight-gradient.js';

const ALL: readonly FusedKernel[] = [
  ...normKernels,
  ...rotaryKernels,
  ...gatedKernels,
  ...attentionKernels,
  ...frozenLinearKernels,
  ...headLossKernels,
  ...embeddingKernels,
  ...inputSumKernels,
  ...tokenScoreKernels,
  ...weightGradientKernels,
  ...lowRankKernels,
];

/** What the kernels were made for. */
let installed: { readonly backend: WasmBackend; readonly blas: Blas | undefined } | undefined;

/** The wasm backend is set up and in use. Products stay tfjs's own without a BLAS. */
export async function useFused(blas: Blas | undefined): Promise<void> {
  const backend = tf.backend() as unknown as WasmBackend;
  if (installed?.backend === backend && installed.blas === blas) return;
  installed = { backend, blas };
  const memory = Object.values(backend.wasm.asm).find((v) => v instanceof WebAssembly.Memory);
  for (const { name } of ALL) if (isRegistered(name, 'wasm')) tf.unregisterKernel(name, 'wasm');
  if (memory === undefined) return;
  const heap = new Heap(backend, await loadWasmOn<NnExports>('nn', memory), blas);
  for (const kernel of ALL.filter((k) => !k.blas || blas !== undefined)) {
    tf.registerKernel({
      kernelName: kernel.name,
      backendName: 'wasm',
      kernelFunc: ({ inputs, attrs }) => kernel.body(heap, inputs, attrs as never),
    });
  }
}

/** Only the plain operations again: what tests compare with. */
export function usePlainNn(): void {
  installed = undefined;
  for (const { name } of ALL) if (isRegistered(name, 'wasm')) tf.unregisterKernel(name, 'wasm');
}
