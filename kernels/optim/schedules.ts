/**
 * Learning rates by step. Warm-up: rate t / W up to step W, so that the first step is not lost; then, with u = (t - W) / (N - W):
 *   cosine        least + (rate - least) (1 + cos(pi u)) / 2      Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983
 *   linear        rate (1 - u), never below least
 *   constant      rate
 *   inverse-sqrt  rate sqrt(W / t)                               Vaswani et al., 2017, https://arxiv.org/abs/1706.03762
 *   wsd           rate until N - D, then rate (1 - sqrt(s)) over the last D steps     MiniCPM, Hu et al., 2024, https://arxiv.org/abs/2404.06395
 */
export const SCHEDULES = ['cosine', 'linear', 'constant', 'inverse-sqrt', 'wsd'] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface Schedule {
  readonly name: ScheduleName;
  readonly rate: number;
  /** Where cosine and linear end. */
  readonly least: number;
  readonly warmup: number;
  readonly steps: number;
  /** Steps of WSD's decay; a tenth of all by default. */
  readonly decay?: number;
}

/** Of step 1, 2, ... */
export function rateAt(s: Schedule, step: number): number {
  const { name, rate, least, warmup, steps } = s;
  if (warmup > 0 && step <= warmup) return (rate * step) / warmup;
  const u = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  switch (name) {
    case 'cosine':
      return least + ((rate - least) * (1 + Math.cos(Math.PI * u))) / 2;
    case 'linear':
      return Math.max(least, rate * (1 - u));
    case 'constant':
      return rate;
    case 'inverse-sqrt':
      return rate * Math.sqrt(Math.max(1, warmup) / step);
    case 'wsd': {
      const decay = s.decay ?? Math.max(1, Math.round(steps / 10));
      return rate * (1 - Math.sqrt(Math.min(1, Math.max(0, (step - (steps - decay)) / decay))));
    }
  }
}
