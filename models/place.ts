/** Where a tensor sits in its model, by its name alone: for figures that go by layer and module. */

export interface Place {
  /** The stack of layers, `model.layers`; empty for a tensor outside of any. */
  readonly stack: string;
  /** Index in the stack. */
  readonly layer?: number;
  /** The module, the same in every layer: `self_attn.q_proj`; a bias or another parameter keeps its own name. */
  readonly module: string;
}

/** The first number in a name is its layer; later ones (experts) are a `*`: their tensors are one module. */
export function placeOf(name: string): Place {
  const [, stack = '', index, rest = name] = /^(?:(.*?)\.)?(\d+)\.(.+)$/.exec(name) ?? [];
  const module = rest.replace(/(?<=^|\.)\d+(?=\.)/g, '*').replace(/(?<=.)\.weight$/, '');
  return index === undefined ? { stack: '', module } : { stack, layer: Number(index), module };
}
