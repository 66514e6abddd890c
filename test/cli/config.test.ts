/** `--config`: flags from YAML, the command line wins. */
import { Flags } from '@oclif/core';
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withConfig } from '../../cli/config.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';

const FLAGS = {
  base: Flags.string(),
  out: Flags.string({ char: 'o' }),
  rank: Flags.integer({ exclusive: ['energy'] }),
  energy: Flags.string({ exclusive: ['rank'] }),
  set: Flags.string({ multiple: true }),
  include: Flags.string({ multiple: true }),
  'dry-run': Flags.boolean(),
  resume: Flags.boolean({ allowNo: true }),
};

describe('cli --config', () => {
  const merge = (yaml: string, ...argv: string[]): string[] => {
    using dir = tempDir();
    const file = join(dir.path, 'c.yaml');
    writeFileSync(file, yaml);
    return withConfig([...argv, '--config', file], FLAGS);
  };

  it('every kind of flag, snake_case too', () => {
    const yaml = 'base: llama\nrank: 16\ndry_run: true\nresume: false\ninclude: ["*.q_proj*", "*.k_proj*"]\nset: {factors: int8, n: 2}\n';
    expect(merge(yaml, 'x')).to.deep.equal(
      ['--base=llama', '--rank=16', '--dry-run', '--no-resume', '--include=*.q_proj*', '--include=*.k_proj*', '--set', 'factors=int8', '--set', 'n=2', 'x'],
    ); // prettier-ignore
    expect(merge('dry-run: false\n')).to.deep.equal([]);
    expect(merge('')).to.deep.equal([]);
  });

  it('the command line wins, also by a flag that excludes the one in the file', () => {
    expect(merge('base: a\nout: b\n', '--base', 'c', '-o', 'd')).to.deep.equal(['--base', 'c', '-o', 'd']);
    expect(merge('rank: 16\n', '--energy=0.9')).to.deep.equal(['--energy=0.9']);
    expect(merge('resume: true\n', '--no-resume')).to.deep.equal(['--no-resume']);
  });

  it('refuses what is no flag of the command', async () => {
    for (const yaml of ['ranks: 3\n', '- a\n', 'rank: [1, 2]\n', 'dry-run: 3\n', 'base: {a: 1}\n', 'base: "a\n']) {
      await expectCode('USAGE', () => merge(yaml));
    }
    await expectCode('NOT_FOUND', () => withConfig(['--config=/no/such/file.yaml'], FLAGS));
    await expectCode('USAGE', () => withConfig(['--config'], FLAGS));
  });
});
