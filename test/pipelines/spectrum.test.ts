/** Spectra of checkpoints and of differences: known singular values, ranks, odd tensors; how they are shown. */
import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sparkline } from '../../cli/spectrum-view.js';
import { encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import type { Pipeline } from '../../core/events.js';
import { diffCheckpoints } from '../../pipelines/diff.js';
import type { IntrudersResult } from '../../pipelines/intruders.js';
import { spectra } from '../../pipelines/spectrum.js';
import { pith } from '../support/cli.js';
import { tempDir, TINY, writeSafetensors } from '../support/files.js';
import { frobenius, withSpectrum } from '../support/random-matrix.js';

const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}
const view = (name: string, dtype: DenseDType, shape: number[], values: Float32Array): TensorView => ({ name, dtype, shape, bytes: encodeAs(dtype, values) });

describe('pipelines/spectrum', () => {
  it('known singular values, ranks of the energy and of its entropy; of weights and of differences', async () => {
    using dir = tempDir();
    const s = Array.from({ length: 40 }, (_, i) => 0.8 ** i);
    const [a, d] = [new Rng(1).normals(60 * 40), withSpectrum(new Rng(2), 60, 40, s)];
    const [base, tuned] = [join(dir.path, 'a.safetensors'), join(dir.path, 'b.safetensors')];
    const others = [view('norm', 'F32', [40], a.subarray(0, 40)), view('nan', 'F32', [4, 4], new Float32Array(16).fill(NaN))];
    writeSafetensors(base, [view('w', 'F32', [60, 40], a), view('zero', 'F32', [5, 4], new Float32Array(20)), view('conv', 'BF16', [4, 2, 3, 3], a.subarray(0, 72)), ...others]); // prettier-ignore
    writeSafetensors(tuned, [view('w', 'F32', [60, 40], a.map((v, i) => v + d[i]!)), view('zero', 'F32', [5, 4], new Float32Array(20)), view('conv', 'BF16', [4, 2, 3, 3], a.subarray(0, 72)), ...others]); // prettier-ignore
    const found = await drain(spectra({ ...RUN, checkpoint: tuned, base, selects: () => true }));
    expect([...found.keys()].sort()).to.deep.equal(['conv', 'nan', 'w', 'zero']);
    const w = found.get('w')!;
    expect(w.complete).to.equal(true);
    for (const [i, v] of w.values.entries()) expect(Math.abs(v - s[i]!)).to.be.lessThan(2e-5);
    const energy = s.map((v) => v * v / frobenius(s) ** 2); // prettier-ignore
    const shares = s.map((v) => v / s.reduce((x, y) => x + y, 0));
    const rank = (share: number): number => energy.findIndex((_, i) => energy.slice(0, i + 1).reduce((x, y) => x + y, 0) >= share) + 1;
    expect([w.rank90, w.rank95, w.rank99]).to.deep.equal([rank(0.9), rank(0.95), rank(0.99)]);
    expect(Math.abs(w.effectiveRank! - Math.exp(-shares.reduce((x, p) => x + p * Math.log(p), 0)))).to.be.lessThan(0.01);
    expect(found.get('nan')).to.deep.include({ finite: false, values: [] });
    expect(found.get('zero')).to.deep.include({ norm: 0, rank90: 0 });
    const own = await drain(spectra({ ...RUN, checkpoint: base, selects: (n) => n === 'conv' }));
    expect([...own.keys()]).to.deep.equal(['conv']);
    expect(Math.abs(frobenius(own.get('conv')!.values) / own.get('conv')!.norm - 1)).to.be.lessThan(1e-5);
    const diff = await drain(diffCheckpoints({ ...RUN, base, tuned, selects: () => true, spectrum: true }));
    expect(diff.tensors.filter((t) => t.spectrum !== undefined).map((t) => t.name)).to.deep.equal(['w']);
  });

  it('intruder dimensions: a planted one is found, what cannot be looked at says why', async () => {
    using dir = tempDir();
    const [base, tuned] = [join(dir.path, 'a.safetensors'), join(dir.path, 'b.safetensors')];
    const [m, n] = [48, 40];
    const w = withSpectrum(
      new Rng(3),
      m,
      n,
      Array.from({ length: n }, (_, i) => 0.9 ** i),
    );
    const planted = withSpectrum(new Rng(4), m, n, [3]);
    const small = new Rng(5).normals(m * n);
    const nan = new Float32Array(16).fill(NaN);
    writeSafetensors(base, [view('p', 'F32', [m, n], w), view('s', 'F32', [m, n], w), view('nan', 'F32', [4, 4], nan)]);
    writeSafetensors(tuned, [
      view('p', 'F32', [m, n], w.map((v, i) => v + planted[i]!)),
      view('s', 'F32', [m, n], w.map((v, i) => v + 1e-4 * small[i]!)),
      view('nan', 'F32', [4, 4], nan.map((v, i) => (i === 0 ? 1 : v))),
    ]); // prettier-ignore
    const { tensors, intruders } = await drain(diffCheckpoints({ ...RUN, base, tuned, selects: () => true, spectrum: true }));
    expect(intruders).to.deep.equal({ top: 10, cosine: 0.5 });
    const of = (name: string): IntrudersResult => tensors.find((t) => t.name === name)!.intruders!;
    expect(of('p').intruders.map((v) => v.index)).to.deep.equal([0]);
    expect(of('p').leading).to.have.length(10);
    expect(of('s').intruders).to.deep.equal([]);
    expect(of('nan').left).to.equal('not finite');
    const strict = await drain(diffCheckpoints({ ...RUN, base, tuned, selects: (t) => t === 's', spectrum: true, intruders: { top: 3, cosine: 1 } }));
    expect(strict.tensors[0]!.intruders!.leading).to.have.length(3);
    expect(strict.tensors[0]!.intruders!.intruders).to.have.length(3);
  });

  it('a matrix too large for its whole spectrum has no intruders looked for', () => {
    using dir = tempDir();
    const [base, tuned] = [join(dir.path, 'a.safetensors'), join(dir.path, 'b.safetensors')];
    const side = 1025;
    const w = new Float32Array(side * side);
    for (let i = 0; i < side; i++) w[i * side + i] = 1 / (i + 1);
    const of = (scale: number): TensorView => view('w', 'BF16', [side, side], w.map((v) => scale * v)); // prettier-ignore
    writeSafetensors(base, [of(1)]);
    writeSafetensors(tuned, [of(2)]);
    const r = pith(['diff', base, tuned, '--spectrum', '--json', '--quiet'], { env: { PITH_BLAS: 'none' } });
    expect(r.code, r.stderr).to.equal(0);
    const { tensors } = JSON.parse(r.stdout) as { tensors: { intruders: IntrudersResult }[] };
    expect(tensors[0]!.intruders).to.deep.equal({ left: 'too large', leading: [], intruders: [] });
    expect(pith(['diff', base, tuned, '--intruder-cosine', '2']).code).to.equal(64);
  });

  it('commands: tables, JSON, a report that is never written over', () => {
    using dir = tempDir();
    const q = ['--include', '*.0.self_attn.*'];
    const text = pith(['diff', join(TINY, 'base'), join(TINY, 'tuned'), '--spectrum', ...q, '--report', join(dir.path, 'd.html')]);
    expect(text.code).to.equal(0);
    expect(text.stdout).to.match(/q_proj\.weight +\d+ +\d+\.\d+ .*[▁▂▃▄▅▆▇█]{10}/u);
    const page = readFileSync(join(dir.path, 'd.html'), 'utf8');
    expect(page).to.contain('self_attn.o_proj');
    expect(text.stdout).to.match(/intruder dimensions: \d+ in \d+ of 4 matrices \(top 10, cosine below 0.5\)/);
    const again = ['inspect', join(TINY, 'base'), '--report', join(dir.path, 'd.html')];
    expect(pith(again).code).to.equal(73);
    expect(readFileSync(join(dir.path, 'd.html'), 'utf8')).to.equal(page);
    // asked before the work: a folder that is missing, a place that is taken
    expect(pith(['diff', join(TINY, 'base'), join(TINY, 'tuned'), '--spectrum', '--report', join(dir.path, 'no', 'd.html')]).code).to.equal(66);
    expect(pith(['diff', 'no-such', 'no-such', '--report', join(dir.path, 'd.html')]).code).to.equal(73);
    expect(pith([...again, '--force']).code).to.equal(0);
    expect(readFileSync(join(dir.path, 'd.html'), 'utf8')).to.contain('Size by module');
    // a write that fails leaves the old page and nothing else
    const failed = pith([...again, '--force'], { env: { PITH_FAULT: 'write:1:ENOSPC' } });
    expect(failed.code, failed.stderr).to.equal(74);
    expect(readdirSync(dir.path)).to.deep.equal(['d.html']);
    expect(readFileSync(join(dir.path, 'd.html'), 'utf8')).to.contain('</html>');
    const json = JSON.parse(pith(['inspect', join(TINY, 'base'), '--spectrum', '--json', ...q]).stdout) as {
      tensors: { spectrum: { effectiveRank: number; side: number } }[];
    };
    expect(json.tensors).to.have.length(4);
    for (const { spectrum } of json.tensors) expect(spectrum.effectiveRank).to.be.within(1, spectrum.side);
  });

  it('lines of blocks', () => {
    expect(sparkline([])).to.equal('');
    expect(sparkline([0, 0])).to.equal('');
    expect(sparkline([1, 1, 1])).to.equal('███');
    expect(sparkline([1, 0.5, 1e-9])).to.match(/^█.▁$/u);
  });
});
