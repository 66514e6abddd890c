/** Diffs as BitDelta's release saves them: against a restatement of its own code, what is said of them, what is refused. */
import { expect } from 'chai';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorCode } from '../../core/errors.js';
import type { Pipeline } from '../../core/events.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import type { TensorView } from '../../core/tensor.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { diffInfo, isBitDeltaDiff } from '../../pipelines/bitdelta-diff.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { openAny } from '../../workers/open.js';
import { pith } from '../support/cli.js';
import { drain, encodePair, loadBytes, RUN, WRITE } from '../support/delta-files.js';
import { expectCode } from '../support/expect-error.js';
import { hashTree, ROOT, tempDir, writeSafetensors } from '../support/files.js';

const GOLDEN = join(ROOT, 'test', 'golden', 'bitdelta');
const TYPES = Object.keys((JSON.parse(readFileSync(join(GOLDEN, 'cases.json'), 'utf8')) as { cases: object }).cases);
const file = (type: string, what: 'base' | 'diff' | 'merged'): string => join(GOLDEN, `${type}.${what}.safetensors`);
const Q = 'model.layers.0.self_attn.q_proj';

async function withWarnings<R>(pipeline: Pipeline<R>): Promise<{ report: R; warnings: string[] }> {
  const warnings: string[] = [];
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return { report: step.value, warnings };
    if (step.value.type === 'warning') warnings.push(step.value.message);
  }
}

function views(path: string): TensorView[] {
  using f = SafetensorsFile.open(path);
  return [...f.entries.keys()].map((name) => f.read(name));
}

/** A base folder with a config beside the golden's weights. */
function baseFolder(dir: string, type: string): string {
  const folder = join(dir, 'base');
  mkdirSync(folder);
  cpSync(file(type, 'base'), join(folder, 'model.safetensors'));
  writeFileSync(join(folder, 'config.json'), '{\n  "vocab_size": 20,\n  "rope_theta": 1.0e4\n}\n');
  writeFileSync(join(folder, 'tokenizer.json'), '{}');
  writeFileSync(join(folder, 'pytorch_model.bin'), 'old');
  return folder;
}

describe('pipelines/bitdelta-diff', () => {
  for (const type of TYPES) {
    it(`${type}: BASE+DIFF is what the release's load_diff makes, byte for byte; restored too`, async () => {
      using dir = tempDir();
      const merged = views(file(type, 'merged'));
      await using reader = await openAny(`${file(type, 'base')}+${file(type, 'diff')}`);
      expect([...reader.infos.values()]).to.have.deep.members(merged.map(({ name, dtype, shape }) => ({ name, dtype, shape })));
      const read = await Promise.all(merged.map((v) => reader.read(v.name)));
      for (const [i, v] of merged.entries()) {
        expect(Buffer.compare(read[i]!.bytes, v.bytes), v.name).to.equal(0);
        const part = await reader.read(v.name, [3, 9]);
        const row = v.bytes.length / v.shape[0]!;
        expect(Buffer.compare(part.bytes, v.bytes.subarray(3 * row, 9 * row)), v.name).to.equal(0);
      }
      const out = join(dir.path, 'out.safetensors');
      const { report, warnings } = await withWarnings(deltaRestore({ ...RUN, ...WRITE, base: file(type, 'base'), delta: file(type, 'diff'), out }));
      expect(await loadBytes(out)).to.deep.equal(new Map(merged.map((v) => [v.name, v.bytes.slice()])));
      expect(report).to.deep.include({ exact: false, proven: false, tensors: merged.length });
      expect(report.contentHash).to.equal(undefined);
      expect(warnings.length).to.equal(1);
      expect(warnings[0]).to.contain('nothing is proven');
    });
  }

  it('restored to a folder: the base’s other files, config.json with the new vocabulary, nothing of its weights', async () => {
    using dir = tempDir();
    const base = baseFolder(dir.path, 'bf16');
    const out = join(dir.path, 'out');
    const options = { ...RUN, ...WRITE, base, delta: file('bf16', 'diff'), out };
    const dry = await drain(deltaRestore({ ...options, dryRun: true }));
    expect(readdirSync(dir.path)).to.deep.equal(['base']);
    const report = await drain(deltaRestore(options));
    expect(report.bytes).to.be.greaterThan(dry.bytes);
    expect(report.files.map((f) => f.name)).to.have.members(['model.safetensors', 'config.json', 'tokenizer.json']);
    expect(readdirSync(out)).to.have.members(['model.safetensors', 'config.json', 'tokenizer.json']);
    expect(readFileSync(join(out, 'config.json'), 'utf8')).to.equal('{\n  "vocab_size": 22,\n  "rope_theta": 1.0e4\n}\n');
    expect(await loadBytes(out)).to.deep.equal(await loadBytes(file('bf16', 'merged')));
    await expectCode('OUTPUT_EXISTS', () => drain(deltaRestore(options)));
    expect(readdirSync(dir.path).sort()).to.deep.equal(['base', 'out']);
  });

  it('BASE+DIFF can be kept as a delta with proofs: an exact one, and as signs against the same base', async () => {
    using dir = tempDir();
    const base = baseFolder(dir.path, 'f32');
    const tuned = `${base}+${file('f32', 'diff')}`;
    const p = (name: string): string => join(dir.path, name);
    await encodePair({ base, tuned }, p('exact.safetensors'), 'lossless');
    const r = await drain(deltaRestore({ ...RUN, ...WRITE, base, delta: p('exact.safetensors'), out: p('back') }));
    expect([r.exact, r.proven]).to.deep.equal([true, true]);
    expect(await loadBytes(p('back'))).to.deep.equal(await loadBytes(file('f32', 'merged')));
    expect(readdirSync(p('back')).sort()).to.deep.equal(['config.json', 'model.safetensors', 'tokenizer.json']);
    const signs = await encodePair({ base, tuned }, p('signs.safetensors'), 'bitdelta');
    // signs and one scale are all that the difference is
    expect(signs.tensors.find((t) => t.name === `${Q}.weight`)).to.include({ method: 'bitdelta', bytes: (40 * 64) / 8 + 4 });
    expect(signs.error).to.be.lessThan(1e-6);
  });

  it('info and verify: what is in it, and that nothing is proven; whole tensors are compared with the original', async () => {
    using dir = tempDir();
    const [base, delta, merged] = [file('bf16', 'base'), file('bf16', 'diff'), file('bf16', 'merged')];
    expect([isBitDeltaDiff(delta), isBitDeltaDiff(base)]).to.deep.equal([true, false]);
    const info = diffInfo(delta)!;
    expect(info).to.include({ format: 'bitdelta', proven: false });
    expect(info.tensors.find((t) => t.name === `${Q}.weight`)).to.deep.equal({ name: `${Q}.weight`, method: 'bitdelta', shape: [40, 64], bytes: 324 });
    expect(info.tensors.filter((t) => t.method === 'whole').length).to.equal(3);
    const { report, warnings } = await withWarnings(deltaVerify({ ...RUN, base, delta, tuned: undefined }));
    expect(report).to.deep.equal({ ok: true, checked: 5, exact: false, proven: false, mismatches: [] });
    expect(warnings[0]).to.contain('nothing is proven');
    expect((await drain(deltaVerify({ ...RUN, base, delta, tuned: merged }))).ok).to.equal(true);
    const other = join(dir.path, 'other.safetensors');
    writeSafetensors(other, views(merged).map((v) => (v.name === 'lm_head.weight' ? { ...v, bytes: v.bytes.map((b, i) => (i === 5 ? b ^ 1 : b)) } : v))); // prettier-ignore
    const no = await drain(deltaVerify({ ...RUN, base, delta, tuned: other }));
    expect(no.mismatches.map((m) => [m.tensor, m.what])).to.deep.equal([['lm_head.weight', 'tuned']]);
  });

  it('the program: warnings on stderr, plain words on stdout, JSON, exit codes', () => {
    using dir = tempDir();
    const [base, delta] = [file('bf16', 'base'), file('bf16', 'diff')];
    const said = pith(['delta', 'info', delta, '--tensors']);
    expect(said.stdout).to.contain('2 tensors as signs and a scale, 3 whole').and.contain('nothing in it is proven').and.contain('40x64');
    expect(JSON.parse(pith(['delta', 'info', delta, '--json']).stdout)).to.include({ schemaVersion: 1, proven: false });
    const verify = pith(['delta', 'verify', '--base', base, '--delta', delta]);
    expect([verify.code, verify.stderr.startsWith('warning: ')], verify.stderr).to.deep.equal([0, true]);
    expect(verify.stdout).to.contain('nothing can be proven: 5 tensors fit');
    const restore = pith(['delta', 'restore', '--base', base, '--delta', delta, '--out', join(dir.path, 'out')]);
    expect([restore.code, restore.stderr.startsWith('warning: ')], restore.stderr).to.deep.equal([0, true]);
    expect(restore.stdout).to.contain('nothing is proven');
    expect(pith(['delta', 'restore', '--delta', delta, '--out', join(dir.path, 'x')]).code).to.equal(64);
    expect(pith(['diff', base, `${base}+${delta}`]).stdout).to.contain(Q);
  });

  const of = (name: string): TensorView => views(file('bf16', 'diff')).find((v) => v.name === name)!;
  const without = (name: string) => (all: TensorView[]) => all.filter((v) => v.name !== name);
  const changed = (name: string, change: (v: TensorView) => TensorView) => (all: TensorView[]) => all.map((v) => (v.name === name ? change(v) : v));
  const refused: readonly [what: string, code: ErrorCode, says: readonly string[], edit: (all: TensorView[]) => TensorView[]][] = [
    ['a mask without its scale', 'DIFF_TENSOR', [`${Q}.coeff`, 'missing'], without(`${Q}.coeff`)],
    ['a scale without its mask', 'DIFF_TENSOR', [`${Q}.mask`, 'missing'], without(`${Q}.mask`)],
    ['a foreign tensor', 'DIFF_TENSOR', ['x.A'], (all) => [...all, { ...of('lm_head.weight'), name: 'x.A' }]],
    ['whole integers', 'DIFF_TENSOR', ['y.weight'], (all) => [...all, { ...of(`${Q}.mask`), name: 'y.weight' }]],
    ['a mask of another type', 'DIFF_TENSOR', [`${Q}.mask`, 'U32'], changed(`${Q}.mask`, (v) => ({ ...v, dtype: 'U32' }))],
    ['two scales', 'DIFF_TENSOR', [`${Q}.coeff`, 'one float'], changed(`${Q}.coeff`, (v) => ({ ...v, shape: [2], bytes: new Uint8Array(8) }))],
    ['a mask of another shape', 'SHAPE_MISMATCH', [`${Q}.mask`, '[2, 40]', '[4, 20]'], changed(`${Q}.mask`, (v) => ({ ...v, shape: [4, 20] }))],
    ['a whole tensor of another width', 'SHAPE_MISMATCH', ['lm_head.weight', '[44, 32]'], changed('lm_head.weight', (v) => ({ ...v, shape: [44, 32] }))],
    ['a norm of another length', 'SHAPE_MISMATCH', ['input_layernorm'], changed('model.layers.0.input_layernorm.weight', (v) => ({ ...v, shape: [32], bytes: v.bytes.slice(0, 64) }))],
    ['a module that the base lacks', 'TENSOR_MISSING', ['other.weight'], (all) => [...all, { ...of(`${Q}.mask`), name: 'other.mask' }, { ...of(`${Q}.coeff`), name: 'other.coeff' }]],
    ['a whole tensor that the base lacks', 'TENSOR_MISSING', ['other.weight'], (all) => [...all, { ...of('lm_head.weight'), name: 'other.weight' }]],
    ['a weight as signs and whole', 'DIFF_TENSOR', [`${Q}.weight`, 'twice'], (all) => [...all, { ...of('lm_head.weight'), name: `${Q}.weight` }]],
    ['a scale that is no number', 'DIFF_TENSOR', [`${Q}.coeff`, 'finite'], changed(`${Q}.coeff`, (v) => ({ ...v, bytes: encodeAs('F32', Float32Array.of(NaN)) }))],
  ]; // prettier-ignore
  for (const [what, code, says, edit] of refused) {
    it(`refuses ${what}: typed, named, nothing written`, async () => {
      using dir = tempDir();
      const delta = join(dir.path, 'd.safetensors');
      writeSafetensors(delta, edit(views(file('bf16', 'diff'))));
      const before = hashTree(dir.path);
      const base = file('bf16', 'base');
      for (const run of [
        () => drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out: join(dir.path, 'out') })),
        () => drain(deltaVerify({ ...RUN, base, delta, tuned: undefined })),
        () => loadBytes(`${base}+${delta}`),
      ]) {
        const error = await expectCode(code, run);
        expect(error.exitCode).to.equal(65);
        for (const text of says) expect(error.message).to.contain(text);
      }
      expect(hashTree(dir.path)).to.deep.equal(before);
    });
  }

  it('whole tensors of another float type take the base’s; a base of integers is refused', async () => {
    using dir = tempDir();
    const delta = join(dir.path, 'd.safetensors');
    const wide = (v: TensorView): TensorView => ({ ...v, dtype: 'F32', bytes: encodeAs('F32', decodeF32('BF16', v.bytes)) });
    writeSafetensors(delta, views(file('bf16', 'diff')).map((v) => (v.name.endsWith('.weight') ? wide(v) : v))); // prettier-ignore
    expect(await loadBytes(`${file('bf16', 'base')}+${delta}`)).to.deep.equal(await loadBytes(file('bf16', 'merged')));
    const base = join(dir.path, 'b.safetensors');
    writeSafetensors(base, views(file('bf16', 'base')).map((v) => (v.name === `${Q}.weight` ? { ...v, dtype: 'I16' } : v))); // prettier-ignore
    const error = await expectCode('DTYPE_UNSUPPORTED', () => openAny(`${base}+${delta}`));
    expect(error.message).to.contain(`${Q}.weight`).and.contain('I16');
  });
});
