/** docs/methods.md: every method of the registry with its paper and parameters. */
import * as z from 'zod';
import { KINDS, listMethods } from '../methods/index.js';

interface Parameter {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly description?: string;
}

const kindOf = (p: Parameter): string => p.enum?.map((v) => `\`${String(v)}\``).join(', ') ?? p.type ?? '';

export async function methodsPage(): Promise<string> {
  const lines = [
    '# Methods',
    '',
    'Made from the registry by `node scripts/methods-doc.mjs`; the same as `pith methods show NAME`. The file of a method is `methods/KIND/NAME.ts`.',
  ];
  for (const kind of KINDS) {
    lines.push('', `## ${kind}`);
    for (const m of await listMethods(kind)) {
      lines.push('', `### ${m.name}`, '', `${m.title}.`, '', `Source: ${m.paper.cite}, <${m.paper.url}>.`);
      const { properties = {} } = z.toJSONSchema(m.params) as { properties?: Record<string, Parameter> };
      const rows = Object.entries(properties).map(
        ([name, p]) =>
          `| \`${name}\` | ${kindOf(p)} | ${p.default === undefined ? '' : `\`${JSON.stringify(p.default)}\``} | ${(p.description ?? '').replaceAll('|', '\\|')} |`,
      );
      if (rows.length > 0) lines.push('', '| parameter | values | default | meaning |', '| --- | --- | --- | --- |', ...rows);
    }
  }
  return `${lines.join('\n')}\n`;
}
