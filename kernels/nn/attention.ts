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
  /** (batch * queries) for rows that several texts share: a token sees only its own number; below 0 nothing. As many queries as keys. */
  readonly segments?: Int32Array | undefined;
}

/**
 * q: (batch * queries, heads * d); k, v: (batch * keys, kvHeads * d); mask: (batch, keys) bool, false hides a key.
 * Gives (batch * queries, heads * d), zeros for a query that sees no key.
 */
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
    const seen = tf.cast(visible(s, mask), 'float32');
    const even = tf.softmax(tf.add(scores, tf.mul(tf.sub(1, seen), -1e30)));
    // a query that sees no key would see all alike
    const p = mask === undefined && s.segments === undefined ? even : tf.mul(even, seen);
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
  if (s.segments !== undefined) {
    const own = tf.tensor(s.segments, [s.batch, 1, s.queries, 1], 'int32');
    const other = tf.reshape(own, [s.batch, 1, 1, s.keys]);
    seen = tf.logicalAnd(seen, tf.logicalAnd(tf.equal(own, other), tf.greaterEqual(own, 0)));
  }
  return mask === undefined ? seen : tf.logicalAnd(seen, tf.cast(tf.reshape(mask, [s.batch, 1, 1, s.keys]), 'bool'));
}

const ATTENTION = 'PithAttention';
const ATTENTION_GRAD = 'PithAttentionGrad';

/** Rows of a block of scores: they stay in the cache, and a key's packing for BLAS serves many of them. */
const BLOCK_ROWS = 96;
/** Queries of a block, for every head of the group: a causal block computes half of its square in vain. */
const LEAST_QUERIES = 32;

const queriesOf = (s: AttentionShape): number => Math.min(s.queries, Math.max(LEAST_QUERIES, Math.floor((BLOCK_ROWS * s.kvHeads) / s.heads)));

/** A block of queries of all heads that share a key head: where it lies and which keys it needs. */
interface Block {
  readonly sequence: number;
  readonly kvHead: number;
  /** Row of the first query in its sequence, number of queries. */
  readonly first: number;
  readonly queries: number;
  /** Keys [from, from + keys) of the sequence. */
  readonly from: number;
  readonly keys: number;
  /** Byte position of the first key's byte in the mask, 0 where nothing is hidden. */
  readonly mask: number;
}

function* blocks(h: Heap, s: AttentionShape, mask: tf.TensorInfo | undefined): Generator<Block> {
  const step = queriesOf(s);
  for (let sequence = 0; sequence < s.batch; sequence++) {
    const seen = seenKeys(h, s, mask, sequence);
    for (const text of textsOf(s, sequence)) {
      for (let kvHead = 0; kvHead < s.kvHeads; kvHead++) {
        for (let first = text.first; first < text.first + text.queries; first += step) {
          const queries = Math.min(step, text.first + text.queries - first);
          const to = Math.min(seen.to, text.to, s.causal ? s.offset + first + queries : s.keys);
          const from = Math.max(seen.from, text.from, s.window > 0 ? s.offset + first - s.window + 1 : 0);
          yield { sequence, kvHead, first, queries, from, keys: Math.max(0, to - from), mask: seen.mask === 0 ? 0 : seen.mask + from };
        }
      }
    }
  }
}

/** Queries [first, first + queries) see keys [from, to) at most. */
interface Text {
  readonly first: number;
  readonly queries: number;
  readonly from: number;
  readonly to: number;
}

/** The texts of a sequence: all of it, or its runs of one segment number; what lies in none is left out. */
function* textsOf(s: AttentionShape, sequence: number): Generator<Text> {
  const { segments } = s;
  if (segments === undefined) {
    yield { first: 0, queries: s.queries, from: 0, to: s.keys };
    return;
  }
  const at = sequence * s.queries;
  for (let first = 0; first < s.queries;) {
    const segment = segments[at + first]!;
    let to = first + 1;
    while (to < s.queries && segments[at + to] === segment) to++;
    if (segment >= 0) yield { first, queries: to - first, from: first, to };
    first = to;
  }
}

/** Keys of a sequence between the first and the last that its mask shows, and the mask where it hides some of them. */
function seenKeys(h: Heap, s: AttentionShape, mask: tf.TensorInfo | undefined, sequence: number): { from: number; to: number; mask: number } {
  if (mask === undefined) return { from: 0, to: s.keys, mask: 0 };
  const pointer = h.at(mask) + sequence * s.keys;
  const bytes = h.backend.wasm.HEAPU8.subarray(pointer, pointer + s.keys);
  const from = bytes.findIndex((b) => b !== 0);
  if (from < 0) return { from: 0, to: 0, mask: 0 };
  const to = bytes.findLastIndex((b) => b !== 0) + 1;
  return { from, to, mask: bytes.subarray(from, to).includes(0) ? pointer : 0 };
}

/** Views of the heap for the blocks of one call; `q` and its like are `heads * d` wide, `k` and its like `kvHeads * d`. */
class Places {
  readonly group: number;
  readonly d: number;
  /** Strides of both kinds of rows. */
  readonly ldq: number;
  readonly ldk: number;

  constructor(
    private readonly h: Heap,
    readonly s: AttentionShape,
    q: tf.TensorInfo,
  ) {
    this.ldq = q.shape[1]!;
    this.d = this.ldq / s.heads;
    this.ldk = s.kvHeads * this.d;
    this.group = s.heads / s.kvHeads;
  }

  /** Byte position of the block's queries of the group's `g`-th head. */
  query(t: tf.TensorInfo, b: Block, g: number): number {
    const row = b.sequence * this.s.queries + b.first;
    return this.h.at(t) + 4 * (row * this.ldq + (b.kvHead * this.group + g) * this.d);
  }

  /** The block's rows of all heads of the group: where they lie when the group is one head, else one head after the other in `scratch`. */
  queries(t: tf.TensorInfo, b: Block, scratch: number): { view: Float32Array; ld: number } {
    if (this.group === 1) return { view: this.h.values(this.query(t, b, 0), (b.queries - 1) * this.ldq + this.d), ld: this.ldq };
    for (let g = 0; g < this.group; g++) {
      this.h.nn.copyRows(this.query(t, b, g), this.ldq, scratch + 4 * g * b.queries * this.d, this.d, b.queries, this.d, 0);
    }
    return { view: this.h.values(scratch, this.group * b.queries * this.d), ld: this.d };
  }

  keys(t: tf.TensorInfo, b: Block): Float32Array {
    const row = b.sequence * this.s.keys + b.from;
    return this.h.values(this.h.at(t) + 4 * (row * this.ldk + b.kvHead * this.d), (b.keys - 1) * this.ldk + this.d);
  }

  /** Byte position of a value a query, (batch, heads, queries). */
  perQuery(t: tf.TensorInfo, b: Block, g: number): number {
    return this.h.at(t) + 4 * ((b.sequence * this.s.heads + b.kvHead * this.group + g) * this.s.queries + b.first);
  }

  /** Numbers of the softmax kernels that say which keys the block's queries see. */
  sight(b: Block): [queries: number, keys: number, first: number, causal: number, window: number, cap: number, scale: number, mask: number] {
    const { s } = this;
    return [b.queries, b.keys, s.offset + b.first - b.from, s.causal ? 1 : 0, s.window, s.softcap, s.scale, b.mask];
  }
}

/** Scratch in parts of so many values: byte positions. */
function parts(h: Heap, ...values: number[]): number[] {
  let at = h.scratch(4 * values.reduce((a, b) => a + b));
  return values.map((n) => (at += 4 * n) - 4 * n);
}

function forward(h: Heap, { q, k, v, mask }: Inputs, s: AttentionShape): tf.TensorInfo[] {
  // queries that see no key stay zeros
  const out = mask === undefined && s.segments === undefined ? h.output(q!.shape) : h.zeros(q!.shape);
  const lse = h.output([s.batch * s.heads * s.queries]);
  const at = new Places(h, s, q!);
  const { group, d, ldq, ldk } = at;
  const most = group * queriesOf(s);
  const [scores, qs, ys, inv] = parts(h, most * s.keys, most * d, most * d, most) as [number, number, number, number];
  for (const b of blocks(h, s, mask)) {
    if (b.keys === 0) {
      for (let g = 0; g < group; g++) h.values(at.perQuery(lse, b, g), b.queries).fill(-Infinity);
      continue;
    }
    const rows = group * b.queries;
    const queries = at.queries(q!, b, qs);
    const p = h.values(scores, rows * b.keys);
    h.blas!.sgemm(false, true, rows, b.keys, d, 1, queries.view, queries.ld, at.keys(k!, b), ldk, 0, p, b.keys);
    for (let g = 0; g < group; g++) {
      const from = g * b.queries;
      h.nn.softmaxRows(scores + 4 * from * b.keys, ...at.sight(b), at.perQuery(lse, b, g), inv + 4 * from);
    }
    const [y, ld] = group === 1 ? [at.query(out, b, 0), ldq] : [ys, d];
    h.blas!.sgemm(false, false, rows, d, b.keys, 1, p, b.keys, at.keys(v!, b), ldk, 0, h.values(y, (rows - 1) * ld + d), ld);
    for (let g = 0; g < group; g++) {
      const from = g * b.queries;
      h.nn.copyRows(y + 4 * from * ld, ld, at.query(out, b, g), ldq, b.queries, d, inv + 4 * from);
    }
  }
  return [out, lse];
}

// D = rowsum(dO O); dV += P^T dO; dP = dO V^T; dS = P (dP - D) scale; dQ = dS K; dK += dS^T Q
function backward(h: Heap, { q, k, v, out, lse, dy, mask }: Inputs, s: AttentionShape): tf.TensorInfo[] {
  const [dq, dk, dv] = [h.zeros(q!.shape), h.zeros(k!.shape), h.zeros(v!.shape)];
  const at = new Places(h, s, q!);
  const { group, d, ldq, ldk } = at;
  const most = group * queriesOf(s);
  const [ps, gs, qs, dys, dqs, dots] = parts(h, most * s.keys, most * s.keys, most * d, most * d, most * d, most) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (const b of blocks(h, s, mask)) {
    if (b.keys === 0) continue;
    const rows = group * b.queries;
    const [p, g] = [h.values(ps, rows * b.keys), h.values(gs, rows * b.keys)];
    const [queries, dys_] = [at.queries(q!, b, qs), at.queries(dy!, b, dys)];
    const [kb, vb] = [at.keys(k!, b), at.keys(v!, b)];
    h.blas!.sgemm(false, true, rows, b.keys, d, 1, queries.view, queries.ld, kb, ldk, 0, p, b.keys);
    h.blas!.sgemm(false, true, rows, b.keys, d, 1, dys_.view, dys_.ld, vb, ldk, 0, g, b.keys);
    for (let i = 0; i < group; i++) {
      const from = i * b.queries;
      h.nn.rowDots(at.query(dy!, b, i), at.query(out!, b, i), dots, b.queries, d, ldq);
      h.nn.softmaxRowsGrad(ps + 4 * from * b.keys, gs + 4 * from * b.keys, ...at.sight(b), at.perQuery(lse!, b, i), dots);
    }
    const [y, ld] = group === 1 ? [at.query(dq, b, 0), ldq] : [dqs, d];
    h.blas!.sgemm(false, false, rows, d, b.keys, 1, g, b.keys, kb, ldk, 0, h.values(y, (rows - 1) * ld + d), ld);
    h.blas!.sgemm(true, false, b.keys, d, rows, 1, g, b.keys, queries.view, queries.ld, 1, at.keys(dk, b), ldk);
    h.blas!.sgemm(true, false, b.keys, d, rows, 1, p, b.keys, dys_.view, dys_.ld, 1, at.keys(dv, b), ldk);
    for (let i = 0; group > 1 && i < group; i++) h.nn.copyRows(dqs + 4 * i * b.queries * d, d, at.query(dq, b, i), ldq, b.queries, d, 0);
  }
  return [dq, dk, dv];
}

export const attentionKernels: readonly FusedKernel[] = [fusedKernel(ATTENTION, forward, true), fusedKernel(ATTENTION_GRAD, backward, true)];
