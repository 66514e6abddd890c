/** The post-quantization integral on a trained classifier 32-64-10 (tanh): the loss it accounts for, and what keeping its largest weights saves. */
import { expect } from 'chai';
import { Rng } from '../../core/rng.js';
import { loadMethod } from '../../methods/index.js';
import type { Quantized } from '../../methods/kinds.js';
import { parseScheme } from '../../methods/quant-scheme.js';
import { ctx } from '../support/pruning.js';

const [IN, HIDDEN, OUT, SAMPLES] = [32, 64, 10, 400];
const SCHEME = parseScheme('W2A16G0_ASYM');
type Weights = readonly [first: Float32Array, second: Float32Array];

/** Mean cross-entropy and its gradients. */
function lossOf([w1, w2]: Weights, x: Float32Array, y: readonly number[]): { loss: number; gradients: Weights } {
  const [g1, g2] = [new Float32Array(w1.length), new Float32Array(w2.length)];
  const [h, p, dh] = [new Float64Array(HIDDEN), new Float64Array(OUT), new Float64Array(HIDDEN)];
  let loss = 0;
  for (let t = 0; t < SAMPLES; t++) {
    const input = x.subarray(t * IN, (t + 1) * IN);
    for (let i = 0; i < HIDDEN; i++) h[i] = Math.tanh(input.reduce((sum, v, j) => sum + v * w1[i * IN + j]!, 0));
    for (let o = 0; o < OUT; o++) p[o] = Math.exp(h.reduce((sum, v, i) => sum + v * w2[o * HIDDEN + i]!, 0));
    const total = p.reduce((a, b) => a + b, 0);
    loss -= Math.log(p[y[t]!]! / total) / SAMPLES;
    dh.fill(0);
    for (let o = 0; o < OUT; o++) {
      const d = (p[o]! / total - Number(o === y[t])) / SAMPLES;
      for (let i = 0; i < HIDDEN; i++) {
        g2[o * HIDDEN + i] = g2[o * HIDDEN + i]! + d * h[i]!;
        dh[i] = dh[i]! + d * w2[o * HIDDEN + i]!;
      }
    }
    for (let i = 0; i < HIDDEN; i++) {
      const d = dh[i]! * (1 - h[i]! ** 2);
      for (let j = 0; j < IN; j++) g1[i * IN + j] = g1[i * IN + j]! + d * input[j]!;
    }
  }
  return { loss, gradients: [g1, g2] };
}

/** Adam. */
function train(start: Weights, x: Float32Array, y: readonly number[]): Weights {
  const w: Weights = [start[0].slice(), start[1].slice()];
  const [m, v] = [0, 1].map(() => w.map((a) => new Float64Array(a.length)));
  for (let step = 1; step <= 120; step++) {
    const { gradients } = lossOf(w, x, y);
    for (const [k, g] of gradients.entries()) {
      for (let i = 0; i < g.length; i++) {
        m![k]![i] = 0.9 * m![k]![i]! + 0.1 * g[i]!;
        v![k]![i] = 0.999 * v![k]![i]! + 0.001 * g[i]! ** 2;
        w[k]![i] = w[k]![i]! - (0.01 * m![k]![i]!) / (1 - 0.9 ** step) / (Math.sqrt(v![k]![i]! / (1 - 0.999 ** step)) + 1e-8);
      }
    }
  }
  return w;
}

describe('methods/quant: pqi', () => {
  const rng = new Rng(1);
  const centers = rng.normals(OUT * IN);
  const y = Array.from({ length: SAMPLES }, (_, t) => t % OUT);
  const x = Float32Array.from({ length: SAMPLES * IN }, (_, i) => 0.45 * centers[y[Math.floor(i / IN)]! * IN + (i % IN)]! + rng.normal());
  const shapes = [[HIDDEN, IN], [OUT, HIDDEN]] as const; // prettier-ignore
  let w: Weights;
  let rounded: Weights;
  let gradients: Weights | undefined;

  const quantize = async (name: string, params: object): Promise<Quantized[]> => {
    const method = (await loadMethod('quant', name)).create(params);
    const layer = (k: 0 | 1) => ({ name: `layer ${k}`, m: shapes[k][0], n: shapes[k][1], w: w[k] });
    return Promise.all(([0, 1] as const).map((k) => method.quantize(ctx(), layer(k), { tokens: SAMPLES, ...(gradients === undefined ? {} : { pathGradient: gradients[k] }) }, SCHEME))); // prettier-ignore
  };
  const lossWith = (q: readonly Quantized[]): number => lossOf([q[0]!.w, q[1]!.w], x, y).loss;

  before(async function () {
    this.timeout(60_000);
    w = train([rng.normals(HIDDEN * IN).map((v) => v / Math.sqrt(IN)), rng.normals(OUT * HIDDEN).map((v) => v / Math.sqrt(HIDDEN))], x, y);
    const nearest = await quantize('rtn', {});
    rounded = [nearest[0]!.w, nearest[1]!.w];
    const steps = 16;
    const sums: Weights = [new Float32Array(w[0].length), new Float32Array(w[1].length)];
    for (let k = 0; k < steps; k++) {
      const t = (k + 0.5) / steps;
      const at = w.map((a, l) => a.map((v, i) => v + t * (rounded[l]![i]! - v))) as unknown as Weights;
      for (const [l, g] of lossOf(at, x, y).gradients.entries()) for (let i = 0; i < g.length; i++) sums[l]![i] = sums[l]![i]! + g[i]! / steps;
    }
    gradients = sums;
  });

  it('the signed sum is the loss that rounding costs, within 3 %', () => {
    const difference = lossOf(rounded, x, y).loss - lossOf(w, x, y).loss;
    let sum = 0;
    for (const l of [0, 1] as const) for (let i = 0; i < w[l].length; i++) sum += (rounded[l][i]! - w[l][i]!) * gradients![l][i]!;
    expect(difference).to.be.greaterThan(0.01);
    expect(sum / difference).to.be.within(0.97, 1.03);
  });

  it('keeping weights by it saves more than by the size of their error, signed or not; all of them restores the weight', async () => {
    let last = lossOf(rounded, x, y).loss;
    const before = last;
    for (const sparse of [0.005, 0.02, 0.05]) {
      const byError = ([0, 1] as const).map((l) => {
        const off = w[l].map((v, i) => Math.abs(rounded[l][i]! - v));
        const order = Array.from(off.keys()).sort((a, b) => off[b]! - off[a]! || a - b);
        const back = rounded[l].slice();
        for (const i of order.slice(0, Math.floor(sparse * back.length))) back[i] = w[l][i]!;
        return back;
      });
      const [plain, signed] = [lossWith(await quantize('pqi', { sparse })), lossWith(await quantize('pqi', { sparse, signed: true }))];
      const magnitude = lossOf([byError[0]!, byError[1]!], x, y).loss;
      expect(plain, String(sparse)).to.be.below(magnitude);
      expect(signed, String(sparse)).to.be.below(Math.min(magnitude, before));
      expect(plain).to.be.below(last);
      last = plain;
    }
    const all = await quantize('pqi', { sparse: 1, values: 'F32' });
    for (const l of [0, 1] as const) expect(all[l]!.w).to.deep.equal(w[l]);
    const both = await quantize('pqi', { sparse: 0.02, outliers: 0.02 });
    expect(both[0]!.kept!.index.length).to.equal(2 * Math.floor(0.02 * HIDDEN * IN));
  });
});
