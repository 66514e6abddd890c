/**
 * Scaled dot-product attention with grouped queries, causal and sliding masks, key masks and soft caps, with gradient.
 * Keys and values are never copied per query head, and no scores outlive a block of queries: the gradient computes them again
 * from the log-sum-exp of every row (Dao et al. 2022, arXiv 2205.14135), with the machine's BLAS on strided heads.
 */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFusedAll, withGradient, type FusedKernel, type Heap, type Inputs } from './heap.js';

export interface AttentionShape {
  readonly batch: number;
  /** Queries and keys of every sequence. */
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  /** Divides `heads`; query head h reads key head floor(h / (heads / kvHeads)). */
  readonly kvHeads: number;
  readonly scale: number;
  readonly causal: boolean;
  /** A query sees that many last keys, itself included; 0: all. */
  readonly window: number;
  /** s -> cap tanh(s / cap) before the mask; 0: none. */
  readonly softcap: number;
  /** Position of the first query among the keys: of use with earlier keys kept. */
  readonly offset: number;
}

/** q: (batch * queries, heads * d); k, v: (batch * keys, kvHeads * d); mask: (batch, keys) bool, false hides a key. Gives (batch * queries, heads * d). */
export function attention(q: tf.Tensor2D, k: tf.Tensor2D, v: tf.Tensor2D, shape: AttentionShape, mask?: tf.Tensor2D): tf.Tensor2D {
  if (!hasFused(ATTENTION)) return plainAttention(q, k, v, shape, mask);
  const masked = mask === undefined ? {} : { mask };
  return withGradient(
    [q, k, v],
    () => {
      const [value, lse] = runFusedAll(ATTENTION, { q, k, v, ...masked }, shape);
      return { value: value!, saved: [q, k, v, value!, lse!, ...Object.values(masked)] };
    },
    (dy, [q1, k1, v1, out, lse, m]) =>
      runFusedAll(ATTENTION_GRAD, { q: q1!, k: k1!, v: v1!, out: out!, lse: lse!, dy, ...(m === undefined ? {} : { mask: m }) }, shape),
  ) as tf.Tensor2D;
}

export function plainAttention(q: tf.Tensor2D, k: tf.Tensor2D, v: tf.Tensor2D, s: AttentionShape, mask?: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => {
    const d = q.shape[1] / s.heads;
    const group = s.heads / s.kvHeads;
    // (batch, heads, positions, d)
    const qh = tf.transpose(tf.reshape(q, [s.batch, s.queries, s.heads, d]), [0, 2, 1, 3]);
    const spread = (t: tf.Tensor2D): tf.Tensor => {
      const own = tf.transpose(tf.reshape(t, [s.batch, s.keys, s.kvHeads, d]), [0, 2, 1, 3]);
      return group === 1 ? own : tf.reshape(tf.stack(Array<tf.Tensor>(group).fill(own), 2), [s.batch, s.heads, s.keys, d]);
    };
    let scores = tf.mul(tf.matMul(qh, spread(k), false, true), s.scale);
    if (s.softcap > 0) scores = tf.mul(tf.tanh(tf.div(scores, s.softcap)), s.softcap);
    const hidden = tf.mul(tf.sub(1, tf.cast(visible(s, mask), 'float32')), -1e30);
    const p = tf.softmax(tf.add(scores, hidden));
    const out = tf.transpose(tf.matMul(p, spread(v)), [0, 2, 1, 3]);
    return tf.reshape(out, [s.batch * s.queries, s.heads * d]);
  });
}

/** (batch or 1, 1, queries, keys): which keys a query sees. */
function visible(s: AttentionShape, mask: tf.Tensor2D | undefined): tf.Tensor {
  const query = tf.reshape(tf.range(s.offset, s.offset + s.queries, 1), [1, 1, s.queries, 1]);
  const key = tf.reshape(tf.range(0, s.keys, 1), [1, 1, 1, s.keys]);
  let seen: tf.Tensor = tf.greaterEqual(tf.add(tf.mul(key, 0), tf.mul(query, 0)), 0);
  if (s.causal) seen = tf.logicalAnd(seen, tf.lessEqual(key, query));
  if (s.window > 0) seen = tf.logicalAnd(seen, tf.greater(key, tf.sub(query, s.window)));
  return mask === undefined ? seen : tf.logicalAnd(seen, tf.cast(tf.reshape(mask, [s.batch, 1, 1, s.keys]), 'bool'));
}

const ATTENTION = 'PithAttention';
const ATTENTION_GRAD = 'PithAttentionGrad';

/** Queries of a block: their scores stay in the cache. */
const QUERY_BLOCK = 128;

/** One block of queries of one head: where it lies and which keys it needs. */
interface Block {
  readonly sequence: number;
  readonly head: number;
  readonly kvHead: number;
  /** Row of the first query in its sequence, number of queries. */
  readonly first: number;
  readonly rows: number;
  /** Keys [from, from + keys) of the sequence. */
  readonly from: number;
  readonly keys: number;
}

function* blocks(s: AttentionShape): Generator<Block> {
  for (let sequence = 0; sequence < s.batch; sequence++) {
    for (let head = 0; head < s.heads; head++) {
      const kvHead = Math.floor(head / (s.heads / s.kvHeads));
      for (let first = 0; first < s.queries; first += QUERY_BLOCK) {
        const rows = Math.min(QUERY_BLOCK, s.queries - first);
        const to = s.causal ? Math.min(s.keys, s.offset + first + rows) : s.keys;
        const from = s.window > 0 ? Math.min(to, Math.max(0, s.offset + first - s.window + 1)) : 0;
        yield { sequence, head, kvHead, first, rows, from, keys: to - from };
      }
    }
  }
}

/** Views of the heap at the places of one block; `q` and its like are `heads * d` wide, `k` and its like `kvHeads * d`. */
function places(h: Heap, s: AttentionShape, d: number): { q: (t: tf.TensorInfo, b: Block) => Float32Array; k: (t: tf.TensorInfo, b: Block) => Float32Array } {
  return {
    q: (t, b) => {
      const row = b.sequence * s.queries + b.first;
      return h.values(h.at(t) + 4 * (row * s.heads + b.head) * d, (b.rows - 1) * s.heads * d + d);
    },
    k: (t, b) => {
      const row = b.sequence * s.keys + b.from;
      return h.values(h.at(t) + 4 * (row * s.kvHeads + b.kvHead) * d, (b.keys - 1) * s.kvHeads * d + d);
    },
  };
}

function forward(h: Heap, { q, k, v, mask }: Inputs, s: AttentionShape): tf.TensorInfo[] {
  const width = q!.shape[1]!;
  const d = width / s.heads;
  const [out, lse] = [h.output(q!.shape), h.output([s.batch * s.heads * s.queries])];
  const scores = h.scratch(4 * QUERY_BLOCK * s.keys);
  const at = places(h, s, d);
  const [ldq, ldk] = [width, s.kvHeads * d];
  for (const b of blocks(s)) {
    const view = h.values(scores, b.rows * b.keys);
    const log = h.at(lse) + 4 * ((b.sequence * s.heads + b.head) * s.queries + b.first);
    h.blas!.sgemm(false, true, b.rows, b.keys, d, 1, at.q(q!, b), ldq, at.k(k!, b), ldk, 0, view, b.keys);
    const seen = mask === undefined ? 0 : h.at(mask) + b.sequence * s.keys + b.from;
    h.nn.softmaxRows(scores, b.rows, b.keys, s.offset + b.first - b.from, s.causal ? 1 : 0, s.window, s.softcap, s.scale, seen, log);
    h.blas!.sgemm(false, false, b.rows, d, b.keys, 1, view, b.keys, at.k(v!, b), ldk, 0, at.q(out, b), ldq);
  }
  return [out, lse];
}

// D = rowsum(dO O); dV += P^T dO; dP = dO V^T; dS = P (dP - D) scale; dQ = dS K; dK += dS^T Q
function backward(h: Heap, { q, k, v, out, lse, dy, mask }: Inputs, s: AttentionShape): tf.TensorInfo[] {
  const width = q!.shape[1]!;
  const d = width / s.heads;
  const [dq, dk, dv] = [h.output(q!.shape), h.zeros(k!.shape), h.zeros(v!.shape)];
  const scores = h.scratch(4 * (2 * QUERY_BLOCK * s.keys + QUERY_BLOCK));
  const at = places(h, s, d);
  const [ldq, ldk] = [width, s.kvHeads * d];
  for (const b of blocks(s)) {
    const [p, g] = [scores, scores + 4 * QUERY_BLOCK * s.keys];
    const dots = g + 4 * QUERY_BLOCK * s.keys;
    const [pv, gv] = [h.values(p, b.rows * b.keys), h.values(g, b.rows * b.keys)];
    const log = h.at(lse!) + 4 * ((b.sequence * s.heads + b.head) * s.queries + b.first);
    const [kb, vb, qb, dyb] = [at.k(k!, b), at.k(v!, b), at.q(q!, b), at.q(dy!, b)];
    h.blas!.sgemm(false, true, b.rows, b.keys, d, 1, qb, ldq, kb, ldk, 0, pv, b.keys);
    h.blas!.sgemm(false, true, b.rows, b.keys, d, 1, dyb, ldq, vb, ldk, 0, gv, b.keys);
    h.nn.rowDots(dyb.byteOffset, at.q(out!, b).byteOffset, dots, b.rows, d, width);
    const seen = mask === undefined ? 0 : h.at(mask) + b.sequence * s.keys + b.from;
    h.nn.softmaxRowsGrad(p, g, b.rows, b.keys, s.offset + b.first - b.from, s.causal ? 1 : 0, s.window, s.softcap, s.scale, seen, log, dots);
    h.blas!.sgemm(false, false, b.rows, d, b.keys, 1, gv, b.keys, kb, ldk, 0, at.q(dq, b), ldq);
    h.blas!.sgemm(true, false, b.keys, d, b.rows, 1, gv, b.keys, qb, ldq, 1, at.k(dk, b), ldk);
    h.blas!.sgemm(true, false, b.keys, d, b.rows, 1, pv, b.keys, dyb, ldq, 1, at.k(dv, b), ldk);
  }
  return [dq, dk, dv];
}

export const attentionKernels: readonly FusedKernel[] = [fusedKernel(ATTENTION, forward, true), fusedKernel(ATTENTION_GRAD, backward, true)];
