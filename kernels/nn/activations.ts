/**
 * Activation functions on single numbers, in f64: the oracle of the tensor kernels, and the names that configs use for them.
 * GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415; SiLU: Elfwing et al. 2017, arXiv 1702.03118; squared ReLU: So et al. 2021, arXiv 2109.08668.
 */
export const ACTIVATION_KINDS = ['silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'quick_gelu', 'tanh', 'identity'] as const;
export type ActivationKind = (typeof ACTIVATION_KINDS)[number];

/** transformers' names; the tanh form goes by several, which differ in nothing but rounding. */
const NAMES: Readonly<Record<string, ActivationKind>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_python_tanh: 'gelu_tanh',
  gelu_accurate: 'gelu_tanh',
  quick_gelu: 'quick_gelu',
  relu: 'relu',
  relu2: 'relu2',
  tanh: 'tanh',
  linear: 'identity',
};

/** Names that `activationKind` knows. */
export const ACTIVATION_NAMES: readonly string[] = Object.keys(NAMES);

/** The function that a config's name means; undefined for one that is not known. */
export const activationKind = (name: string): ActivationKind | undefined => (Object.hasOwn(NAMES, name) ? NAMES[name] : undefined);

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);

export const ACTIVATIONS: Readonly<Record<ActivationKind, (x: number) => number>> = {
  silu: (x) => x * sigmoid(x),
  // x Phi(x)
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  tanh: Math.tanh,
  identity: (x) => x,
};

const gelu = (x: number): number => ACTIVATIONS.gelu(x);

/** d act / dx; 0 at the kink of ReLU, as torch has it. */
export const ACTIVATION_SLOPES: Readonly<Record<ActivationKind, (x: number) => number>> = {
  silu: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))),
  // Phi(x) + x phi(x)
  gelu: (x) => (x === 0 ? 0.5 : gelu(x) / x) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI),
  gelu_tanh: (x) => {
    const t = Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x);
  },
  quick_gelu: (x) => sigmoid(1.702 * x) * (1 + 1.702 * x * (1 - sigmoid(1.702 * x))),
  relu: (x) => (x > 0 ? 1 : 0),
  relu2: (x) => 2 * Math.max(x, 0),
  tanh: (x) => 1 - Math.tanh(x) ** 2,
  identity: () => 1,
};

/** Below this the power series of erf loses nothing to cancellation; above it the continued fraction of erfc is short. */
const SERIES_UNTIL = 2.5;
/** erfc(6) is 2e-17: erf is 1 to the last bit. */
const ONE_FROM = 6;

/** Error function, absolute error below 1e-15. Abramowitz and Stegun, 7.1.6 and 7.1.14. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(a)) return x;
  if (a >= ONE_FROM) return Math.sign(x);
  return Math.sign(x) * (a < SERIES_UNTIL ? series(a) : 1 - fraction(a));
}

/** erf(x) = 2/sqrt(pi) e^-x^2 sum_n 2^n x^(2n+1) / (1 3 ... (2n+1)): all terms positive. */
function series(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** erfc(x) = e^-x^2 / sqrt(pi) 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...)))), from the inside; 60 levels are exact to f64 from 2.5 on. */
function fraction(x: number): number {
  let tail = x;
  for (let k = 60; k >= 1; k--) tail = x + k / 2 / tail;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail;
}
