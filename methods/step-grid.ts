/** The quantizer steps that a budget chooses from, in units of the delta's own size: point 0 keeps next to nothing. */

export const GRID = {
  first: 32,
  perOctave: 6,
  points: 48,
  /** A curve ends where it costs this many times the share that the model may take on average ... */
  headroom: 3,
  /** ... but never below this share. */
  leastShare: 0.01,
  /** It ends too where another codec has left less than a `lostBy`-th of its squared error at so many points in a row. */
  lostBy: 1.2,
  lostPoints: 4,
} as const;

export const stepAt = (point: number): number => GRID.first * 2 ** (-point / GRID.perOctave);
