/** Spectra of checkpoints and of differences: known singular values, ranks, odd tensors; how they are shown. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sparkline } from '../../cli/spectrum-view.js';
import { encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import type { Pipeline } from '../../core/events.js';
import { diffCheckpoints } from '../../pipelines/diff.js';
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

  it('commands: tables, JSON, a report that is never written over', () => {
    using dir = tempDir();
    const q = ['--include', '*.0.self_attn.*'];
    const text = pith(['diff', join(TINY, 'base'), join(TINY, 'tuned'), '--spectrum', ...q, '--report', join(dir.path, 'd.html')]);
    expect(text.code).to.equal(0);
    expect(text.stdout).to.match(/q_proj\.weight +\d+ +\d+\.\d+ .*[▁▂▃▄▅▆▇█]{10}/u);
    const page = readFileSync(join(dir.path, 'd.html'), 'utf8');
    expect(page).to.contain('self_attn.o_proj');
    const again = pith(['inspect', join(TINY, 'base'), '--report', join(dir.path, 'd.html')]);
    expect(again.code).to.equal(73);
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
