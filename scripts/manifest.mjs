// Writes oclif.manifest.json: with it `pith --help` loads no command at all.
import { Config } from '@oclif/core';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

export async function writeManifest() {
  process.env.NODE_ENV = 'production';
  const config = new Config({ root, devPlugins: false, userPlugins: false, ignoreManifest: true });
  await config.load();
  const plugin = config.plugins.get(config.pjson.name);
  writeFileSync(join(root, 'oclif.manifest.json'), `${JSON.stringify(plugin.manifest)}\n`);
}
