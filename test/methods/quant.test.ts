/** Quantizers: what all of them promise, and the sheet's acceptance lines on F1 and on distributions. */
import { expect } from 'chai';
import { decodeF32 } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import { inputScales, scaleColumns } from '../../kernels/quant/awq.js';
import { DYNAMIC_MAP, NF4, NF4_BLOCK, tableValues } from '../../kernels/quant/nf4.js';
import { e4m3Code } from '../../kernels/quant/fp8.js';
import { loadMethod, methodNames } from '../../methods/index.js';
import type { LayerWeight, Quantized, QuantStats } from '../../methods/kinds.js';
import { decodeInt, parseScheme, schemeName } from '../../methods/quant-scheme.js';
import { expectCode } from '../support/expect-error.js';
import { outputError } from '../support/f1.js';
import { ctx, f1, ops, type Layer } from '../support/pruning.js';
import { distance, frobenius } from '../support/random-matrix.js';

const NO_STATS: QuantStats = { tokens: 0 };
const quantize = async (name: string, layer: LayerWeight, stats: QuantStats, scheme: string, params: object = {}): Promise<Quantized> =>
  (await loadMethod('quant', name)).create(params).quantize(ctx(), layer, stats, parseScheme(scheme));
const layerOf = (w: Float32Array, m: number, n: number): LayerWeight => ({ name: 'proj', m, n, w });
const gaussian = (seed: number, m = 256, n = 512): LayerWeight => layerOf(new Rng(seed).normals(m * n), m, n);
const relative = (q: Quantized, { w }: LayerWeight): number => distance(q.w, w) / frobenius(w);
const within = (v: number, measured: number, share: number): void => void expect(v / measured, `${v} beside ${measured}`).to.be.within(1 - share, 1 + share);
const SCHEME_OF: Readonly<Record<string, string>> = { nf4: 'NF4', fp8: 'FP8' };

describe('methods/quant: schemes', () => {
  it('the names of the field, and back', () => {
    expect(parseScheme('W4A16')).to.deep.equal({ grid: 'int', bits: 4, symmetric: true, groupSize: 128 });
    expect(parseScheme('w2a16g64_asym')).to.deep.equal({ grid: 'int', bits: 2, symmetric: false, groupSize: 64 });
    expect(parseScheme('W8A16')).to.deep.equal({ grid: 'int', bits: 8, symmetric: true, groupSize: 0 });
    for (const name of ['W4A16', 'W8A16', 'W3A16G0', 'W2A16G64_ASYM', 'W8A16G128', 'FP8', 'NF4']) expect(schemeName(parseScheme(name))).to.equal(name);
  });

  it('what is none is refused', async () => {
    for (const name of ['', 'W9A16', 'W4A8', 'W4', 'FP4', 'W4A16G']) await expectCode('BAD_PARAMS', () => parseScheme(name));
  });
});

describe('methods/quant: what every quantizer promises', () => {
  for (const name of methodNames('quant')) {
    it(`${name}: codes, scales and what is kept decode to w; nothing given is changed; the same twice; others' schemes and NaN are refused`, async () => {
      const { layer, stats } = f1(new Rng(3), 24, 192, 400);
      const given: QuantStats = { ...stats, pathGradient: new Rng(9).normals(24 * 192) };
      const copies = [layer.w, given.inputGram!, given.inputAbsMean!, given.pathGradient!].map((x) => x.slice());
      for (const scheme of SCHEME_OF[name] === undefined ? ['W4A16G64_ASYM', 'W3A16G64', 'W2A16G0_ASYM', 'W8A16'] : [SCHEME_OF[name]]) {
        const q = await quantize(name, layer, given, scheme);
        expect([layer.w, given.inputGram!, given.inputAbsMean!, given.pathGradient!]).to.deep.equal(copies);
        expect(await quantize(name, layer, given, scheme)).to.deep.equal(q);
        expect(Math.max(...q.codes)).to.be.below(2 ** q.scheme.bits);
        const back =
          q.scheme.grid === 'int'
            ? decodeInt(q, 24, 192)
            : q.scheme.grid === 'nf4'
              ? tableValues(q.codes, q.scales, NF4_BLOCK, NF4)
              : decodeF32('F8_E4M3', q.codes).map((v, i) => v * q.scales[Math.floor(i / 192)]!);
        if (q.inputScales !== undefined) for (let i = 0; i < back.length; i++) back[i] = back[i]! / q.inputScales[i % 192]!;
        for (const [k, j] of (q.keptColumns?.index ?? []).entries()) {
          for (let i = 0; i < 24; i++) back[i * 192 + j] = q.keptColumns!.values[i * q.keptColumns!.index.length + k]!;
        }
        for (const [k, i] of (q.kept?.index ?? []).entries()) back[i] = q.kept!.values[k]!;
        expect(distance(back, q.w)).to.be.below(1e-6 * frobenius(q.w));
        expect(q.bitsPerWeight).to.be.within(q.scheme.bits, q.scheme.bits + 2);
      }
      await expectCode('BAD_PARAMS', () => quantize(name, layer, given, name === 'fp8' ? 'NF4' : 'FP8'));
      await expectCode('NOT_FINITE', () => quantize(name, { ...layer, w: layer.w.map(() => NaN) }, given, SCHEME_OF[name] ?? 'W4A16'));
    });
  }
});

describe('methods/quant: F1', () => {
  const error = ({ layer, stats }: Layer, q: Quantized): number => outputError(q.w, layer.w, stats.inputGram, layer.m, layer.n, ops);
  for (const seed of [11, 12, 13]) {
    it(`seed ${seed}: bands and orderings of rtn, awq, gptq, owq at 4 and 3 bits`, async () => {
      const f = f1(new Rng(seed));
      for (const [bits, measured] of [
        [4, { row: 0.118, group: 0.1, scale: 0.084, clip: 0.076, gptqRow: 0.072, gptq: 0.062, act: 0.055, owq: 0.051 }],
        [3, { row: 0.25, group: 0.219, scale: 0.181, clip: 0.149, gptqRow: 0.155, gptq: 0.136, act: 0.119, owq: 0.109 }],
      ] as const) {
        const run = async (name: string, scheme: string, params: object = {}): Promise<Quantized> => quantize(name, f.layer, f.stats, scheme, params);
        const [row, group] = [`W${bits}A16G0_ASYM`, `W${bits}A16_ASYM`];
        const awq = await run('awq', group, { clip: false });
        const owq = await run('owq', row, { columns: 8, mse: false });
        // the sheet's figure is of whole ranges
        if (bits === 3 && seed === 11) expect(error(f, await run('owq', row, { columns: 8 }))).to.be.below(error(f, owq));
        const got = {
          row: error(f, await run('rtn', row)),
          group: error(f, await run('rtn', group)),
          scale: error(f, awq),
          clip: error(f, await run('awq', group)),
          gptqRow: error(f, await run('gptq', row, { actOrder: false })),
          gptq: error(f, await run('gptq', group, { actOrder: false })),
          act: error(f, await run('gptq', group)),
          owq: error(f, owq),
        };
        for (const key of Object.keys(measured) as (keyof typeof measured)[]) within(got[key], measured[key], 0.08);
        expect([got.row > got.group, got.group > got.scale, got.scale > got.clip]).to.deep.equal([true, true, true]);
        expect([got.gptqRow > got.gptq, got.gptq > got.act]).to.deep.equal([true, true]);
        expect(awq.facts['alpha']).to.be.within(0.2, 0.4);
        expect(got.scale / got.group).to.be.at.most(0.87);
        expect(got.clip / got.group).to.be.at.most(bits === 4 ? 0.8 : 0.72);
        expect(got.owq / got.gptqRow).to.be.at.most(0.75);
        const n = f.layer.n;
        const diagonal = Array.from({ length: n }, (_, j) => [f.stats.inputGram[j * (n + 1)]!, j] as const).sort((a, b) => b[0] - a[0]);
        expect([...owq.keptColumns!.index]).to.include.members(diagonal.slice(0, 5).map(([, j]) => j));
      }
    });
  }

  it('owq keeps as many columns as the bits pay for; scaling alone changes nothing, searched scales lose no more; groups in the order of activation have an index', async () => {
    const f = f1(new Rng(14), 48, 256, 600);
    const none = await quantize('owq', f.layer, f.stats, 'W4A16G0_ASYM', { columns: 0 });
    expect(none.keptColumns!.index.length).to.equal(0);
    const two = await quantize('owq', f.layer, f.stats, 'W4A16G0_ASYM', { targetBits: 4.1 });
    expect([two.facts['columns'], none.facts['columns']]).to.deep.equal([2, 0]);
    const s = inputScales(f.stats.inputAbsMean, 0.6);
    expect(distance(scaleColumns(scaleColumns(f.layer.w, s, false), s, true), f.layer.w) / frobenius(f.layer.w)).to.be.below(1e-6);
    const eight = await quantize('awq', f.layer, f.stats, 'W8A16', { clip: false });
    expect(eight.facts['gain']).to.be.at.most(1);
    const q = await quantize('gptq', f.layer, f.stats, 'W4A16_ASYM', { staticGroups: false });
    expect([...new Set(q.groupIndex)].sort()).to.deep.equal([0, 1]);
    expect(q.groupIndex!.filter((g) => g === 0).length).to.equal(128);
  });
});

describe('methods/quant: distributions', () => {
  it('Gaussian: errors of nf4, int4, int3 and the row; never more than half a step', async () => {
    const g = gaussian(1);
    within(relative(await quantize('nf4', g, NO_STATS, 'NF4', { doubleQuant: false }), g), 0.092, 0.02);
    for (const [scheme, measured] of [
      ['W4A16G64_ASYM', 0.091],
      ['W4A16G64', 0.108],
      ['W4A16G0_ASYM', 0.118],
      ['W3A16_ASYM', 0.216],
    ] as const) {
      const q = await quantize('rtn', g, NO_STATS, scheme);
      within(relative(q, g), measured, 0.02);
      const size = q.scheme.groupSize > 0 ? q.scheme.groupSize : g.n;
      const groups = q.scales.length / g.m;
      // in steps; rounding the zero point moves the range by up to half a step more
      const off = g.w.map((v, i) => Math.abs(q.w[i]! - v) / q.scales[Math.floor(i / g.n) * groups + Math.floor((i % g.n) / size)]!);
      expect(off.reduce((a, b) => Math.max(a, b))).to.be.within(0.49, 1.01);
      const again = await quantize('rtn', layerOf(q.w, g.m, g.n), NO_STATS, scheme, { scales: 'F32' });
      expect(distance(again.w, q.w) / frobenius(q.w)).to.be.below(0.02);
    }
  });

  it('nf4: 4.127 bits with double quantization, zero is code 7, the map of bitsandbytes', async () => {
    const g = gaussian(2, 128, 512);
    const [plain, nested] = [await quantize('nf4', g, NO_STATS, 'NF4', { doubleQuant: false }), await quantize('nf4', g, NO_STATS, 'NF4')];
    expect(plain.bitsPerWeight).to.equal(4.5);
    expect(nested.bitsPerWeight).to.be.closeTo(4.127, 1e-3);
    expect(relative(nested, g) / relative(plain, g)).to.be.within(0.99, 1.01);
    expect([...(await quantize('nf4', layerOf(new Float32Array(128), 2, 64), NO_STATS, 'NF4')).codes]).to.deep.equal(Array(128).fill(7));
    expect([DYNAMIC_MAP.length, DYNAMIC_MAP[0], DYNAMIC_MAP[127], DYNAMIC_MAP[255]]).to.deep.equal([256, Math.fround(-0.99296875), 0, 1]);
    const back = await quantize('nf4', layerOf(plain.w, 128, 512), NO_STATS, 'NF4', { doubleQuant: false });
    expect(back.w).to.deep.equal(plain.w);
  });

  it('fp8: every value of E4M3 is its own code, others go to the nearest, rows by their largest', async () => {
    const values = decodeF32(
      'F8_E4M3',
      Uint8Array.from({ length: 256 }, (_, i) => i),
    );
    for (const [code, v] of values.entries()) if (!Number.isNaN(v)) expect(e4m3Code(v)).to.equal(code);
    const sorted = values.filter((v) => !Number.isNaN(v)).sort();
    const rng = new Rng(5);
    for (let i = 0; i < 2000; i++) {
      const v = rng.normal() * 10 ** (4 * rng.uniform() - 2);
      const off = Math.abs(values[e4m3Code(v)]! - v);
      expect(off).to.equal(sorted.reduce((least, x) => Math.min(least, Math.abs(x - v)), Infinity));
    }
    const g = gaussian(6, 32, 256);
    expect(relative(await quantize('fp8', g, NO_STATS, 'FP8'), g)).to.be.below(0.03);
  });

  it('hqq: less error than its start at 2, 3 and 4 bits, by what the sheet measured', async () => {
    // beta is of the size of weights
    const g = layerOf(
      gaussian(7).w.map((v) => 0.02 * v),
      256,
      512,
    );
    const loss = (q: Quantized): number => q.w.reduce((sum, v, i) => sum + Math.abs(v - g.w[i]!) ** 0.7, 0);
    for (const [bits, least, most] of [
      [4, 0.04, 0.05],
      [3, 0.03, 0.042],
      [2, 0.04, 0.05],
    ] as const) {
      const [start, end] = [
        await quantize('hqq', g, NO_STATS, `W${bits}A16G64_ASYM`, { iterations: 0 }),
        await quantize('hqq', g, NO_STATS, `W${bits}A16G64_ASYM`),
      ];
      expect(1 - relative(end, g) / relative(start, g), `${bits} bits`).to.be.within(least, most);
      expect(loss(end)).to.be.below(loss(start));
    }
  });

  it('adpq: Student-t weights, the share of outliers exact', async () => {
    const rng = new Rng(8);
    const w = Float32Array.from(
      { length: 256 * 512 },
      () => rng.normal() / Math.sqrt((rng.normal() ** 2 + rng.normal() ** 2 + rng.normal() ** 2 + rng.normal() ** 2) / 4),
    );
    const layer = layerOf(w, 256, 512);
    for (const [bits, rtn, half, one, three] of [
      [3, 0.306, 0.236, 0.214, 0.169],
      [4, 0.146, 0.11, 0.1, 0.079],
    ] as const) {
      within(relative(await quantize('rtn', layer, NO_STATS, `W${bits}A16_ASYM`), layer), rtn, 0.08);
      for (const [alpha, measured] of [
        [0.005, half],
        [0.01, one],
        [0.03, three],
      ] as const) {
        const q = await quantize('adpq', layer, NO_STATS, `W${bits}A16_ASYM`, { alpha });
        within(relative(q, layer), measured, 0.08);
        expect(q.kept!.index.length).to.equal(Math.floor(alpha * w.length));
      }
    }
  });
});
