/**
 * Every way pith can fail, as one table: code, exit code and what to say.
 * Exit codes: 1 a check answered no; 64 usage or params; 65 malformed or incompatible data; 66 input missing;
 * 69 device or library unavailable; 70 a bug in pith; 73 output cannot be made or exists; 74 I/O; 75 network; 130 cancelled.
 * A `{field}` in a template is filled from the error's details.
 */
export const ERRORS = {
  // 1: a check answered no
  VERIFY_MISMATCH: [1, '{file}: {count} of {total} tensors do not match, first: tensor "{tensor}" expected sha256 {expected}, got {got}'],
  // 64: usage
  USAGE: [64, '{message}'],
  BAD_PARAMS: [64, 'bad parameters for method "{method}": {message}'],
  UNKNOWN_METHOD: [64, 'unknown {kind} method "{method}"{hint}; `pith methods list` shows them all'],
  TARGET_TOO_SMALL: [64, 'a target of {expected} bytes cannot be met: {message}; the least is {got} bytes'],
  NO_BUDGET: [64, 'method "{method}" cannot be given a size: its bytes follow from the data'],
  SEQLEN: [64, '{file}: sequences of {got} tokens; the model has {expected} positions'],
  BAD_CONFIG: [64, '{file}: {message}'],
  // 65: safetensors structure, one code per kind of fault
  HEADER_TOO_SMALL: [65, '{file}: header too small: expected at least 8 bytes, got {got}'],
  HEADER_TOO_LARGE: [65, '{file}: header too large: expected at most {expected} bytes, got {got}'],
  HEADER_LENGTH: [65, '{file}: invalid header length: header of {expected} bytes does not fit a file of {got} bytes'],
  HEADER_UTF8: [65, '{file}: header is not valid UTF-8'],
  HEADER_JSON: [65, '{file}: invalid JSON in header at byte {position}: {message}'],
  HEADER_DEPTH: [65, '{file}: invalid JSON in header: nested deeper than 127'],
  HEADER_DUPLICATE: [65, '{file}: key "{key}" occurs twice in the header'],
  HEADER_FIELD: [65, '{file}: tensor "{tensor}": field "{field}": expected {expected}, got {got}'],
  HEADER_METADATA: [65, '{file}: __metadata__ key "{key}": expected {expected}, got {got}'],
  HEADER_DTYPE: [65, '{file}: tensor "{tensor}": unknown dtype, got "{got}"'],
  TENSOR_OFFSET: [65, '{file}: tensor "{tensor}": invalid offset: expected begin {expected}, got [{begin}, {end}]'],
  TENSOR_OVERFLOW: [65, '{file}: tensor "{tensor}": shape {shape} overflows the addressable size'],
  TENSOR_MISALIGNED: [65, '{file}: tensor "{tensor}": {dtype} {shape} does not fill whole bytes ({got} bits)'],
  TENSOR_SIZE: [65, '{file}: tensor "{tensor}": {dtype} {shape} needs {expected} bytes, offsets cover {got}'],
  FILE_NOT_COVERED: [65, '{file}: file not fully covered: header describes {expected} bytes, file has {got}'],
  WRITER_NAME: [65, '{file}: tensor name "{tensor}" cannot be written: {message}'],
  WRITER_BYTES: [70, '{file}: tensor "{tensor}": expected {expected} bytes, got {got}'],
  // 65: checkpoints
  INDEX_MALFORMED: [65, '{file}: malformed index: {message}'],
  INDEX_ESCAPES: [65, '{file}: weight_map entry "{tensor}" leaves the folder: "{got}"'],
  INDEX_MISSING_TENSOR: [65, '{file}: tensor "{tensor}" is mapped to {shard}, which does not hold it'],
  DUPLICATE_TENSOR: [65, '{file}: tensor "{tensor}" is in two shards: {expected} and {got}'],
  FILE_CHANGED: [65, '{file}: changed while it was read: expected {expected}, got {got}'],
  NOT_A_CHECKPOINT: [65, '{file}: not a checkpoint: {message}'],
  FACTORIZED_MALFORMED: [65, '{file}: damaged factorized checkpoint: {message}'],
  DTYPE_UNSUPPORTED: [65, '{file}: tensor "{tensor}": dtype {got} is not supported here: {message}'],
  MODEL_CONFIG: [65, '{file}: key "{key}": expected {expected}, got {got}'],
  TOKEN_RANGE: [65, '{file}: token id {got} is not in "{tensor}", which has {expected} rows: the tokenizer belongs to another model'],
  EMBEDDING_MISMATCH: [65, '{file}: vectors of {got} channels; those of the reference {reference} have {expected}: they cannot be compared'],
  VOCABULARY_MISMATCH: [65, '{file}: a vocabulary of {got} tokens; the reference {reference} has {expected}: their distributions cannot be compared'],
  TOKENIZER_MISMATCH: [65, '{file}: token {token} is "{got}"; in {reference} it is "{expected}": their tokenizers differ'],
  LOGITS_NOT_FINITE: [65, '{file}: the model gives probabilities that are not finite: {message}'],
  // 65: GGUF structure, one code per kind of fault
  GGUF_MAGIC: [65, '{file}: not a GGUF file: expected "GGUF" at its start, got "{got}"'],
  GGUF_ENDIAN: [65, '{file}: a big-endian GGUF file (version {got}); only little-endian ones are read'],
  GGUF_VERSION: [65, '{file}: GGUF version: expected 2 or 3, got {got}'],
  GGUF_TRUNCATED: [65, '{file}: ends inside {what}: expected {expected} bytes at {position}, got {got}'],
  GGUF_COUNT: [65, '{file}: {what}: expected at most {expected} in a file of this size, got {got}'],
  GGUF_TOO_LONG: [65, '{file}: {what}: expected at most {expected}, got {got}'],
  GGUF_UTF8: [65, '{file}: {what} at byte {position} is not valid UTF-8'],
  GGUF_KEY_EMPTY: [65, '{file}: metadata key {index} is empty'],
  GGUF_KEY_DUPLICATE: [65, '{file}: metadata key "{key}" occurs twice'],
  GGUF_VALUE_TYPE: [65, '{file}: metadata key "{key}": unknown value type {got}'],
  GGUF_NESTED: [65, '{file}: metadata key "{key}": arrays of arrays are not allowed'],
  GGUF_ALIGNMENT: [65, '{file}: general.alignment: expected {expected}, got {got}'],
  GGUF_DUPLICATE_TENSOR: [65, '{file}: tensor "{tensor}" is listed twice'],
  GGUF_DIMS: [65, '{file}: tensor "{tensor}": expected at most 4 dimensions, got {got}'],
  GGUF_NEGATIVE_DIM: [65, '{file}: tensor "{tensor}": dimension {index} is negative: {got}'],
  GGUF_OVERFLOW: [65, '{file}: tensor "{tensor}": {got} elements are more than a file can have'],
  GGUF_TENSOR_TYPE: [65, '{file}: tensor "{tensor}": unknown ggml type {got}'],
  GGUF_BLOCK: [65, '{file}: tensor "{tensor}": rows of {got} elements are not whole blocks of {expected} ({type})'],
  GGUF_OFFSET: [65, '{file}: tensor "{tensor}": expected offset {expected}, got {got}'],
  GGUF_SPLIT: [65, '{file}: {key}: expected {expected}, got {got}'],
  GGUF_FIELD: [65, '{file}: metadata key "{key}": expected {expected}, got {got}'],
  // 65: deltas
  NOT_A_DELTA: [65, '{file}: not a pith delta: {message}'],
  DELTA_VERSION: [65, '{file}: written by a later format version: expected at most {expected}, got {got}'],
  DELTA_MALFORMED: [65, '{file}: damaged delta: {message}'],
  DELTA_TENSOR: [65, '{file}: tensor "{tensor}": damaged data: {message}'],
  DIFF_TENSOR: [65, '{file}: tensor "{tensor}" of a BitDelta diff: {message}'],
  NO_EXACT_LAYER: [65, '{file}: it holds no exact layer; --quality lossy restores what it has'],
  LAYERS_MISMATCH: [65, '{file}: not the exact layer of {lossy}: {message}'],
  WRONG_BASE: [65, '{file}: wrong base: tensor "{tensor}" expected {expected}, got {got} in {base}'],
  HASH_MISMATCH: [65, '{file}: tensor "{tensor}": expected sha256 {expected}, got {got}'],
  SHAPE_MISMATCH: [65, '{file}: tensor "{tensor}": expected {expected}, got {got}'],
  TENSOR_MISSING: [65, '{file}: tensor "{tensor}" is missing'],
  FACTORS_MALFORMED: [65, 'damaged factors: part "{part}" expected {expected}, got {got}'],
  NOT_FINITE: [65, 'a matrix holds values that are not finite: {message}'],
  LEVELS_MALFORMED: [65, 'damaged level stream: {message}'],
  // 65: adapters
  NOT_AN_ADAPTER: [65, '{file}: not a PEFT LoRA adapter: {message}'],
  ADAPTER_CONFIG: [65, '{file}: field "{field}": expected {expected}, got {got}'],
  ADAPTER_KEY: [65, '{file}: tensor "{tensor}" does not belong to this adapter: {message}'],
  ADAPTER_UNSUPPORTED: [65, '{file}: {message}'],
  ADAPTER_BASE: [65, '{file}: module "{module}" does not fit the base {base}: expected {expected}, got {got}'],
  NOTHING_TO_EXTRACT: [65, '{file}: no module differs from the base {base} in what was selected'],
  RESIDUAL_MALFORMED: [65, 'damaged residual stream: {message}'],
  SPARSE_MALFORMED: [65, 'damaged sparse stream: {message}'],
  // 65: statistics
  NOT_STATS: [65, '{file}: not a statistics file: {message}; `pith calibrate` makes one'],
  STATS_VERSION: [65, '{file}: written by a later format version: expected at most {expected}, got {got}'],
  STATS_MALFORMED: [65, '{file}: damaged statistics: {message}'],
  STATS_MODEL: [65, '{file}: statistics of another model ({model}): expected content {expected}, got {got}'],
  STATS_MISSING: [65, '{file}: no {statistic} of module "{module}" in it; `pith calibrate {flag}` takes it'],
  GRADIENT_NOT_FINITE: [65, '{file}: the gradient of module "{module}" is not finite in sequence {sequence}'],
  INPUT_NOT_FINITE: [65, '{file}: the input of module "{module}" is not finite in sequence {sequence}, token {token}'],
  TRAINING_NOT_FINITE: [65, '{file}: step {step}: the {what} is not finite, with the rows {rows}; nothing of this step was kept, the state before it is'],
  // 65: stores
  NOT_A_STORE: [65, '{file}: not a pith store: {message}'],
  STORE_VERSION: [65, '{file}: written by a later store version: expected at most {expected}, got {got}'],
  STORE_MALFORMED: [65, '{file}: damaged store: {message}'],
  OBJECT_DAMAGED: [65, '{file}: damaged object: {message}'],
  OBJECT_MISSING: [65, '{file}: object is missing'],
  JOURNAL_FOREIGN: [73, '{file}: a partial result of another plan is here; remove it or pass --no-resume'],
  // 65: tokenizers and data
  TOKENIZER_MALFORMED: [65, '{file}: malformed tokenizer: {message}'],
  TOKENIZER_UNSUPPORTED: [65, '{file}: this tokenizer cannot be used: {message}'],
  TOKENIZER_TOKEN: [65, '{file}: the tokenizer has no {token}'],
  CHAT_TEMPLATE: [65, '{file}: chat template: {message}'],
  DATASET_JSON: [65, '{file}: {place}: invalid JSON: {message}'],
  DATASET_UTF8: [65, '{file}: {place}: not valid UTF-8'],
  DATASET_ROW: [65, '{file}: {place}: {message}'],
  DATASET_SHORT: [65, '{file}: too little data: expected at least {expected} tokens, got {got}'],
  // 66
  DATASET_EMPTY: [66, '{file}: no data: {message}'],
  TOKENIZER_MISSING: [66, "{file}: no tokenizer.json; a tokenizer is read from the checkpoint's folder"],
  NOT_FOUND: [66, '{file}: no such file or folder'],
  SHARD_MISSING: [66, '{file}: shard {shard} is missing'],
  BASE_NOT_FOUND: [66, '{file}: the base "{base}" that the delta names was not found; pass --base'],
  MODEL_UNKNOWN: [66, '{file}: no model "{model}" in the store{hint}'],
  // 69
  DEVICE_UNAVAILABLE: [69, 'device "{device}" is not available: {message}'],
  LIBRARY_UNAVAILABLE: [69, '{message}'],
  // 70
  INTERNAL: [70, 'internal error: {message}'],
  // 73
  OUTPUT_EXISTS: [73, '{file}: exists; pass --force to replace it'],
  MODEL_EXISTS: [73, '{file}: the store has a model "{model}"; pass --force to replace it, or --name'],
  OUTPUT_LOCKED: [73, '{file}: another pith process (pid {pid}) is writing it'],
  OUTPUT_DENIED: [73, '{file}: cannot be made: {message}'],
  // 74
  IO: [74, '{file}: {operation} failed: {message}'],
  SHORT_READ: [74, '{file}: short read: expected {expected} bytes at {position}, got {got}'],
  DISK_FULL: [74, '{file}: not enough space: {message}'],
  MEMORY_BUDGET: [64, 'not enough memory: {message}'],
  // 75
  NETWORK: [75, '{message}'],
  // 130
  CANCELLED: [130, 'cancelled'],
} as const satisfies Record<string, readonly [exit: number, template: string]>;

export type ErrorCode = keyof typeof ERRORS;
export type ErrorDetails = Readonly<Record<string, string | number | bigint | boolean>>;

/** What crosses a thread: a thrown class loses its own fields when it is cloned. */
export interface WireError {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;
  readonly stack?: string;
}

/** Text from a file must not drive a terminal: control characters are shown, not sent. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

export class PithError extends Error {
  override readonly name = 'PithError';
  readonly exitCode: number;

  constructor(
    readonly code: ErrorCode,
    readonly details: ErrorDetails = {},
    options?: ErrorOptions,
  ) {
    const [exitCode, template] = ERRORS[code];
    super(
      template.replace(/\{(\w+)\}/g, (_, field: string) => printable(String(details[field] ?? ''))),
      options,
    );
    this.exitCode = exitCode;
  }

  toWire(): WireError {
    return { code: this.code, details: this.details, ...(this.stack === undefined ? {} : { stack: this.stack }) };
  }

  static fromWire(wire: WireError): PithError {
    const error = new PithError(wire.code, wire.details);
    if (wire.stack !== undefined) error.stack = wire.stack;
    return error;
  }

  /** Any thrown value as a PithError: system errors keep their file and errno, the rest is a bug. */
  static from(cause: unknown, file = ''): PithError {
    if (cause instanceof PithError) return cause;
    if (cause instanceof Error && 'code' in cause && typeof cause.code === 'string' && 'errno' in cause) {
      return fromSystemError(cause as NodeJS.ErrnoException, file);
    }
    const message = cause instanceof Error ? cause.message : String(cause);
    return new PithError('INTERNAL', { message }, { cause });
  }
}

function fromSystemError(cause: NodeJS.ErrnoException, file: string): PithError {
  const path = cause.path ?? file;
  const operation = cause.syscall ?? 'I/O';
  const details = { file: path, operation, message: cause.message, errno: cause.code ?? '' };
  const options = { cause };
  switch (cause.code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new PithError('NOT_FOUND', details, options);
    case 'EEXIST':
      return new PithError('OUTPUT_EXISTS', details, options);
    case 'ENOSPC':
    case 'EDQUOT':
      return new PithError('DISK_FULL', details, options);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new PithError(operation === 'open' || operation === 'read' || operation === 'scandir' ? 'IO' : 'OUTPUT_DENIED', details, options);
    default:
      return new PithError('IO', details, options);
  }
}
