/** A panel's values, and its least rows: each GEMM packs the whole (n, n) factor anew, which many rows share. */
const PANEL = { values: 1 << 21, rows: 512 } as const;

/** Rows of a panel of an (m, n) matrix that is multiplied by an (n, n) one. */
export const panelRows = (m: number, n: number): number => Math.max(1, Math.min(m, Math.max(PANEL.rows, Math.floor(PANEL.values / Math.max(1, n)))));
