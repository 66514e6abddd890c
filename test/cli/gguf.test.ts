/** The commands on GGUF files. */
import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openAny } from '../../workers/open.js';
import { pith } from '../support/cli.js';
import { tempDir, writeSafetensors } from '../support/files.js';
import { GGUF_GOLDEN, ggufBytes } from '../support/gguf.js';

const llama = join(GGUF_GOLDEN, 'llama.gguf');

describe('cli: GGUF', () => {
  it('inspect: the types and names of the file, and what it says of its model', () => {
    const r = pith(['inspect', llama, '--tensors']);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.match(/^gguf: architecture llama; name tiny llama; file type Q4_1; context length 256; quantization version 2; version 3$/m);
    expect(r.stdout).to.match(/^model\.layers\.1\.self_attn\.q_proj\.weight +Q8_0 +128x64 +8\.70 kB +blk\.1\.attn_q\.weight$/m);
    expect(r.stdout).to.match(/^Q4_1 +2 +5\.12 kB$/m);
    expect(r.stderr).to.include('warning: ').and.include('no tokenizer.json');
  });

  it('inspect --json: the same for programs, with the metadata', () => {
    const r = pith(['inspect', llama, '--json']);
    const report = JSON.parse(r.stdout) as Record<string, unknown>;
    expect(r.stderr).to.equal('');
    expect(report).to.deep.include({ format: 'gguf', files: [{ name: 'llama.gguf', bytes: 151392, tensors: 21 }] });
    expect(report['facts']).to.deep.include({ architecture: 'llama', fileType: 'Q4_1', contextLength: 256, quantizationVersion: 2 });
    expect(report['metadata']).to.include({ 'llama.attention.head_count_kv': '2', 'llama.attention.layer_norm_rms_epsilon': '0.00001' });
    expect(report['warnings']).to.have.length(1);
    const q = (report['tensors'] as Record<string, unknown>[]).find((t) => t['storedName'] === 'blk.1.attn_q.weight');
    expect(q).to.deep.include({ name: 'model.layers.1.self_attn.q_proj.weight', dtype: 'Q8_0', readAs: 'F32', shape: [128, 64], bytes: 8704 });
  });

  it('diff: a quantized model against floats of another dtype, by value', async () => {
    using dir = tempDir();
    await using reader = await openAny(llama);
    const [norm, q] = await Promise.all(['model.norm.weight', 'model.layers.0.self_attn.q_proj.weight'].map((n) => reader.read(n)));
    const values = new Float32Array(q!.bytes.slice().buffer);
    values[0]! += 1;
    const base = join(dir.path, 'base.safetensors');
    const doubles = Float64Array.from(values);
    writeSafetensors(base, [norm!, { ...q!, dtype: 'F64', bytes: new Uint8Array(doubles.buffer) }]);
    const r = pith(['diff', base, llama, '--json', '--quiet']);
    expect(r.code, r.stderr).to.equal(0);
    const tensors = (JSON.parse(r.stdout) as { tensors: Record<string, unknown>[] }).tensors;
    const of = (name: string): Record<string, unknown> => tensors.find((t) => t['name'] === name)!;
    expect(of(norm!.name)).to.deep.include({ status: 'same', dtype: 'F32' });
    expect(of(q!.name)).to.deep.include({ status: 'changed', dtype: 'F64 -> F32', changedShare: 1 / 8192 });
    expect(of(q!.name)['maxAbs']).to.be.closeTo(1, 1e-6);
    expect(tensors.filter((t) => t['status'] === 'added')).to.have.length(18);
    const spectrum = pith(['diff', base, llama, '--json', '--quiet', '--spectrum']);
    const found = (JSON.parse(spectrum.stdout) as { tensors: { name: string; spectrum?: { values: number[] } }[] }).tensors.find((t) => t.name === q!.name);
    // one changed element: a matrix of rank 1
    expect(found!.spectrum!.values[0]).to.be.closeTo(1, 1e-5);
  });

  it('delta encode --tuned x.gguf, --base x.gguf: what is kept is what is read', async () => {
    using dir = tempDir();
    const [delta, out, same, again] = ['d.safetensors', 'out', 'same.safetensors', 'again'].map((n) => join(dir.path, n)) as [string, string, string, string];
    const encoded = pith(['delta', 'encode', '--base', 'none', '--tuned', llama, '--out', delta]);
    expect(encoded.code, encoded.stderr).to.equal(0);
    expect(encoded.stderr).to.include('what is restored is that, not the GGUF file');
    expect(pith(['delta', 'restore', '--delta', delta, '--out', out]).code).to.equal(0);
    await using gguf = await openAny(llama);
    await using restored = await openAny(out);
    expect([...restored.infos.keys()]).to.have.members([...gguf.infos.keys()]);
    for (const name of gguf.infos.keys()) expect(Buffer.compare((await restored.read(name)).bytes, (await gguf.read(name)).bytes), name).to.equal(0);
    expect(JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'))).to.include({ model_type: 'llama', hidden_size: 64 });

    // and as a base: the restored checkpoint is the GGUF's twin
    const twin = pith(['delta', 'encode', '--base', llama, '--tuned', out, '--out', same, '--json', '--quiet']);
    expect(twin.code, twin.stderr).to.equal(0);
    const { tensors } = JSON.parse(twin.stdout) as { tensors: { bytes: number }[] };
    expect(tensors.reduce((sum, t) => sum + t.bytes, 0)).to.equal(0);
    expect(pith(['delta', 'restore', '--base', llama, '--delta', same, '--out', again]).code).to.equal(0);
    const sha = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
    expect(sha(join(again, 'model.safetensors'))).to.equal(sha(join(out, 'model.safetensors')));
    expect(pith(['delta', 'verify', '--base', llama, '--delta', same]).code).to.equal(0);
  });

  it('a store takes one', () => {
    using dir = tempDir();
    const [store, file] = [join(dir.path, 's'), join(dir.path, 'tiny.gguf')];
    copyFileSync(join(GGUF_GOLDEN, 'gpt2.gguf'), file);
    expect(pith(['store', 'init', store]).code).to.equal(0);
    const added = pith(['store', 'add', store, file]);
    expect(added.code, added.stderr).to.equal(0);
    expect(added.stderr).to.include('not the GGUF file');
    expect(pith(['store', 'get', store, 'tiny', '--out', join(dir.path, 'out')]).code).to.equal(0);
    expect(JSON.parse(readFileSync(join(dir.path, 'out', 'config.json'), 'utf8'))).to.include({ model_type: 'gpt2' });
  });

  it('a damaged file, a folder of several: exit code 65 and the reason', () => {
    using dir = tempDir();
    const bad = join(dir.path, 'bad.gguf');
    writeFileSync(bad, ggufBytes({ version: 7 }));
    const damaged = pith(['inspect', bad]);
    expect([damaged.code, damaged.stderr]).to.deep.equal([65, `error: ${bad}: GGUF version: expected 2 or 3, got 7\n`]);
    copyFileSync(llama, join(dir.path, 'b.gguf'));
    const several = pith(['diff', dir.path, llama]);
    expect(several.code).to.equal(65);
    expect(several.stderr).to.include('several GGUF models, name one: b.gguf, bad.gguf');
  });

  it('names from a file never drive the terminal', () => {
    using dir = tempDir();
    const path = join(dir.path, 'm.gguf');
    writeFileSync(
      path,
      ggufBytes({
        keys: [{ key: 'general.architecture', type: 'string', value: '\u001b[31mred' }],
        tensors: [{ name: '\u001b]0;x\u0007', dims: [4], type: 'F32' }],
      }),
    );
    const r = pith(['inspect', path, '--tensors']);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout + r.stderr)
      .to.include('\\u001b[31mred')
      .and.not.include('\u001b');
  });
});
