/** The tokenizer beside a checkpoint's tensors, whatever the checkpoint is made of. */
import { expect } from 'chai';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openAny } from '../../workers/open.js';
import { loadTokenizer, tokenizerOf } from '../../workers/load-tokenizer.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, TINY } from '../support/files.js';

const BASE = join(TINY, 'base');

describe('workers/load-tokenizer', () => {
  it('of a folder, and of a base with an adapter', async () => {
    for (const argument of [BASE, `${BASE}+${join(TINY, 'lora')}`]) {
      await using reader = await openAny(argument);
      const tokenizer = await loadTokenizer(reader);
      expect(tokenizer.vocabSize).to.equal(2048);
      expect(tokenizer.special).to.deep.equal({ bos: 0, eos: 0, pad: 0 });
      expect(tokenizer.source).to.equal(argument);
    }
  });

  it('chat_template.jinja and generation_config.json are read', () => {
    using dir = tempDir();
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(BASE, name), join(dir.path, name));
    writeFileSync(join(dir.path, 'chat_template.jinja'), '{{ messages[0].content }}!');
    writeFileSync(join(dir.path, 'generation_config.json'), '{"eos_token_id": [0, 5]}');
    const tokenizer = tokenizerOf(dir.path);
    expect(tokenizer.applyChatTemplate([{ role: 'user', content: 'caf\u00e9' }])).to.equal('caf\u00e9!');
    expect(tokenizer.eosIds).to.deep.equal([0, 5]);
  });

  it('none there, or no JSON', async () => {
    using dir = tempDir();
    cpSync(BASE, dir.path, { recursive: true });
    rmSync(join(dir.path, 'tokenizer.json'));
    await using reader = await openAny(dir.path);
    expect((await expectCode('TOKENIZER_MISSING', () => loadTokenizer(reader))).exitCode).to.equal(66);
    await using file = await openAny(join(dir.path, 'model.safetensors'));
    await expectCode('TOKENIZER_MISSING', () => loadTokenizer(file));
    writeFileSync(join(dir.path, 'tokenizer.json'), '{');
    expect((await expectCode('TOKENIZER_MALFORMED', () => loadTokenizer(reader))).message).to.contain('tokenizer.json');
  });
});
