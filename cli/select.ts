/** Globs over tensor names: `*` is anything but a dot-free end, `?` one character, `{a,b}` either. */
export function globToRegExp(glob: string): RegExp {
  let depth = 0;
  const body = Array.from(glob)
    .map((c) => {
      if (c === '*') return '.*';
      if (c === '?') return '.';
      if (c === '{') return (depth++, '(?:');
      if (c === '}' && depth > 0) return (depth--, ')');
      if (c === ',' && depth > 0) return '|';
      return c.replace(/[.+^$()|[\]\\{}]/g, '\\$&');
    })
    .join('');
  return new RegExp(`^${body}${')'.repeat(depth)}$`, 'u');
}

/** A name is selected when an include matches (or there is none) and no exclude does. */
export function selector(include: readonly string[], exclude: readonly string[]): (name: string) => boolean {
  const yes = include.map(globToRegExp);
  const no = exclude.map(globToRegExp);
  return (name) => (yes.length === 0 || yes.some((r) => r.test(name))) && !no.some((r) => r.test(name));
}
