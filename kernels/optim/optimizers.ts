/**
 * Optimizers on host arrays in f32, arithmetic in f64: the bytes are the same on every machine. Each is a pure update of one tensor.
 *   SGD (PyTorch's form)  g <- g + wd x;  buf <- g at the first step, then mu buf + g;  x <- x - lr buf
 *   AdamW  Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101
 *          x <- x (1 - lr wd);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  x <- x - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 *   Lion   Chen et al., 2023, https://arxiv.org/abs/2302.06675
 *          x <- x - lr (sign(b1 m + (1 - b1) g) + wd x);  m <- b2 m + (1 - b2) g
 *   Adafactor  Shazeer and Stern, 2018, https://arxiv.org/abs/1804.04235, without momentum, with a given learning rate
 *          R, C: row and column means of g^2 + eps, averaged with 1 - t^-0.8;  u = g / sqrt(R C^T / mean R);  x <- x (1 - lr wd) - lr u / max(1, rms(u))
 */
export const OPTIMIZERS = ['adamw', 'sgd', 'lion', 'adafactor'] as const;
export type OptimizerName = (typeof OPTIMIZERS)[number];

export interface OptimizerSettings {
  readonly name: OptimizerName;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Of SGD. */
  readonly momentum: number;
}

/** What peers start with. */
export const OPTIMIZER_DEFAULTS: Readonly<Record<OptimizerName, Omit<OptimizerSettings, 'name' | 'weightDecay'>>> = {
  adamw: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, momentum: 0 },
  sgd: { beta1: 0, beta2: 0, epsilon: 0, momentum: 0.9 },
  lion: { beta1: 0.9, beta2: 0.99, epsilon: 0, momentum: 0 },
  adafactor: { beta1: 0, beta2: 0, epsilon: 1e-30, momentum: 0 },
};

/** Arrays that an optimizer keeps of one tensor, by name. */
export type OptimizerState = Readonly<Record<string, Float32Array>>;

export interface Update {
  /** From 1. */
  readonly step: number;
  readonly rate: number;
  readonly decay: boolean;
}

export interface Optimizer {
  init(shape: readonly number[]): OptimizerState;
  /** x changes in place. */
  update(x: Float32Array, g: Float32Array, state: OptimizerState, u: Update): void;
}

export function makeOptimizer(s: OptimizerSettings): Optimizer {
  switch (s.name) {
    case 'adamw':
      return adamw(s);
    case 'sgd':
      return sgd(s);
    case 'lion':
      return lion(s);
    case 'adafactor':
      return adafactor(s);
  }
}

const countOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function adamw({ beta1: b1, beta2: b2, epsilon, weightDecay }: OptimizerSettings): Optimizer {
  return {
    init: (shape) => ({ m: new Float32Array(countOf(shape)), v: new Float32Array(countOf(shape)) }),
    update(x, g, state, { step, rate, decay }) {
      const [m, v] = [state['m']!, state['v']!];
      const keep = decay ? 1 - rate * weightDecay : 1;
      const scale = rate / (1 - b1 ** step);
      const root = 1 / (1 - b2 ** step);
      for (let i = 0; i < x.length; i++) {
        const gi = g[i]!;
        const mi = b1 * m[i]! + (1 - b1) * gi;
        const vi = b2 * v[i]! + (1 - b2) * gi * gi;
        m[i] = mi;
        v[i] = vi;
        x[i] = x[i]! * keep - (scale * mi) / (Math.sqrt(vi * root) + epsilon);
      }
    },
  };
}

function sgd({ momentum, weightDecay }: OptimizerSettings): Optimizer {
  return {
    init: (shape) => ({ buffer: new Float32Array(countOf(shape)) }),
    update(x, g, state, { step, rate, decay }) {
      const buffer = state['buffer']!;
      const wd = decay ? weightDecay : 0;
      const mu = step === 1 ? 0 : momentum;
      for (let i = 0; i < x.length; i++) {
        const b = mu * buffer[i]! + g[i]! + wd * x[i]!;
        buffer[i] = b;
        x[i] = x[i]! - rate * b;
      }
    },
  };
}

function lion({ beta1: b1, beta2: b2, weightDecay }: OptimizerSettings): Optimizer {
  return {
    init: (shape) => ({ m: new Float32Array(countOf(shape)) }),
    update(x, g, state, { rate, decay }) {
      const m = state['m']!;
      const wd = decay ? weightDecay : 0;
      for (let i = 0; i < x.length; i++) {
        const [gi, mi] = [g[i]!, m[i]!];
        x[i] = x[i]! - rate * (Math.sign(b1 * mi + (1 - b1) * gi) + wd * x[i]!);
        m[i] = b2 * mi + (1 - b2) * gi;
      }
    },
  };
}

/** Exponent of the decay of Adafactor's averages (section 7.2). */
const DECAY_EXPONENT = -0.8;

function adafactor({ epsilon, weightDecay }: OptimizerSettings): Optimizer {
  return {
    init(shape) {
      const [rows, columns] = sidesOf(shape);
      return rows === 1 || columns === 1 ? { v: new Float32Array(rows * columns) } : { r: new Float32Array(rows), c: new Float32Array(columns) };
    },
    update(x, g, state, { step, rate, decay }) {
      const keep = 1 - step ** DECAY_EXPONENT;
      const root = state['v'] === undefined ? factored(g, state, keep, epsilon) : plain(g, state['v'], keep, epsilon);
      let squares = 0;
      for (let i = 0; i < x.length; i++) squares += (g[i]! * root(i)) ** 2;
      const scale = rate / Math.max(1, Math.sqrt(squares / x.length));
      const kept = decay ? 1 - rate * weightDecay : 1;
      for (let i = 0; i < x.length; i++) x[i] = x[i]! * kept - scale * g[i]! * root(i);
    },
  };
}

const sidesOf = (shape: readonly number[]): [rows: number, columns: number] => [
  shape.length < 2 ? 1 : shape[0]!,
  countOf(shape.slice(shape.length < 2 ? 0 : 1)),
];

/** 1 / sqrt of the averaged squares, by flat index. */
function plain(g: Float32Array, v: Float32Array, keep: number, epsilon: number): (i: number) => number {
  for (let i = 0; i < g.length; i++) v[i] = keep * v[i]! + (1 - keep) * (g[i]! * g[i]! + epsilon);
  return (i) => 1 / Math.sqrt(v[i]!);
}

function factored(g: Float32Array, state: OptimizerState, keep: number, epsilon: number): (i: number) => number {
  const [r, c] = [state['r']!, state['c']!];
  const columns = c.length;
  const [rowSums, columnSums] = [new Float64Array(r.length), new Float64Array(columns)];
  for (let i = 0, at = 0; i < r.length; i++) {
    for (let j = 0; j < columns; j++, at++) {
      const square = g[at]! * g[at]! + epsilon;
      rowSums[i] = rowSums[i]! + square;
      columnSums[j] = columnSums[j]! + square;
    }
  }
  for (let i = 0; i < r.length; i++) r[i] = keep * r[i]! + ((1 - keep) * rowSums[i]!) / columns;
  for (let j = 0; j < columns; j++) c[j] = keep * c[j]! + ((1 - keep) * columnSums[j]!) / r.length;
  const mean = r.reduce((a, b) => a + b, 0) / r.length;
  return (i) => 1 / Math.sqrt((r[Math.floor(i / columns)]! * c[i % columns]!) / mean);
}

/** Factor that brings the norm of all gradients to `most`: min(1, most / (norm + 1e-6)), as torch's clip_grad_norm_; and the norm itself. */
export function clipFactor(grads: Iterable<Float32Array>, most: number): { readonly norm: number; readonly factor: number } {
  let squares = 0;
  for (const g of grads) for (const v of g) squares += v * v;
  const norm = Math.sqrt(squares);
  return { norm, factor: most > 0 ? Math.min(1, most / (norm + 1e-6)) : 1 };
}
