/** Inputs that were never anything but 0: whatever their weights are does not matter, so updates set them to 0. */

/** Indices j with G_jj = 0; their columns of w: (m, n) become +0. */
export function dropDeadInputs(w: Float32Array, gram: Float32Array, m: number, n: number): readonly number[] {
  const dead: number[] = [];
  for (let j = 0; j < n; j++) if (!(gram[j * (n + 1)]! > 0)) dead.push(j);
  clearColumns(w, dead, m, n);
  return dead;
}

export function clearColumns(w: Float32Array, columns: readonly number[], m: number, n: number): void {
  for (const j of columns) for (let i = 0, at = j; i < m; i++, at += n) w[at] = 0;
}
