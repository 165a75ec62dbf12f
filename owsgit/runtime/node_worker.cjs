/* The managed Node.js runtime: runs inside of the sandbox, one request at a time.
 *
 * Stand-alone on purpose: it is mounted alone into the sandbox and requires nothing but Node's own modules (18 to 24).
 * CommonJS, since a main program that is an ES module starts some milliseconds later; what is rarely needed is required
 * where it is needed, for the same reason. A startup snapshot of our own was measured: with each release it starts 4 to
 * 10 ms later than the snapshot and the code cache that are built in.
 *
 * The protocol is that of python_worker.py. Between two requests the thread waits in read(2): as on Lambda, a function
 * is frozen while it has no request, and no handle of ours keeps its event loop from being empty.
 *
 * The behaviour towards handlers is AWS Lambda's:
 * https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html and .../nodejs-context.html
 */
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');
const util = require('util');

const INIT = 1, READY = 2, INIT_ERROR = 3, INVOKE = 4, RESULT = 5, ERROR = 6, CHUNK = 7, FATAL = 8, HEAD = 15;
const HEADER_BYTES = 9;
// Lambda's limit for a synchronous response.
const RESPONSE_BYTES_MAX = 6 * 1024 * 1024 + 100;
// One piece of a streamed response; a larger write is cut, so that no frame is longer than an answer.
const CHUNK_BYTES_MAX = 1024 * 1024;
// How long to wait when a descriptor that is shared with a child was made non-blocking by it, and is full.
const RETRY_MS = 1;
// Of an error in the log: CloudWatch's limit for one event.
const LOGGED_CHARACTERS_MAX = 256 * 1024;
const MAJOR = Number.parseInt(process.versions.node, 10);
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const HTTP_RESPONSE = 'application/vnd.awslambda.http-integration-response';

// What functions, and the tools that watch them, may replace is kept as it was.
const { readSync, writeSync, read } = fs;
const exit = process.reallyExit.bind(process);
const now = Date.now;

/** An error that Lambda names itself, such as Runtime.ImportModuleError. */
class RuntimeError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = kind;
    this.stack = this.stack.replace(/^Error/, kind);
  }
}

// ---- the socket to the node, in whole frames

const fd = Number(process.argv[2]);
// A debugger has to be answered between two requests too.
const debugged = [...process.execArgv, process.env.NODE_OPTIONS || ''].some((option) => option.includes('--inspect'));

function patiently(action) {
  for (;;) {
    try {
      return action();
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}

function exactly(count, buffer = Buffer.allocUnsafe(count), had = 0) {
  while (had < count) {
    const got = patiently(() => readSync(fd, buffer, had, count - had, null));
    if (got === 0) exit(0); // the node is gone, or has no more need of this worker
    had += got;
  }
  return buffer;
}

function frameAfter(header) {
  return { kind: header[4], number: header.readUInt32BE(5), payload: exactly(header.readUInt32BE(0)) };
}

function receive(take) {
  if (!debugged) return take(frameAfter(exactly(HEADER_BYTES)));
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  read(fd, header, 0, HEADER_BYTES, null, (error, count) => {
    if (error || count === 0) exit(0);
    take(frameAfter(exactly(HEADER_BYTES, header, count)));
  });
}

function writeAll(target, data) {
  for (let done = 0; done < data.length; ) {
    done += patiently(() => writeSync(target, data, done, data.length - done));
  }
}

function send(kind, number, payload) {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.writeUInt32BE(payload.length, 0);
  header[4] = kind;
  header.writeUInt32BE(number, 5);
  if (payload.length < 65536) return writeAll(fd, Buffer.concat([header, payload]));
  writeAll(fd, header);
  writeAll(fd, payload);
}

// ---- output: written at once, so that nothing is lost when the process ends, or comes after the answer

function log(level, values) {
  const line = `${new Date().toISOString()}\t${current ? current.id : undefined}\t${level}\t${util.format(...values)}`;
  writeAll(1, Buffer.from(line.replace(/\n/g, '\r') + '\n'));
}

function logError(title, error) {
  log('ERROR', [title, '\t' + inFull(error).slice(0, LOGGED_CHARACTERS_MAX)]);
}

function synchronous(target) {
  const { Writable } = require('stream');
  const stream = new Writable({
    decodeStrings: true,
    write(data, encoding, done) {
      writeAll(target, data);
      done();
    },
  });
  stream._destroy = (error, done) => done(error); // the descriptor stays open, whatever a handler ends
  return Object.assign(stream, { fd: target, _type: 'pipe', _isStdio: true });
}

function prepareOutput() {
  const levels = { log: 'INFO', info: 'INFO', debug: 'DEBUG', trace: 'TRACE', warn: 'WARN', error: 'ERROR', fatal: 'FATAL' };
  for (const [method, level] of Object.entries(levels)) {
    console[method] = (...values) => log(level, values);
  }
  for (const [name, target] of [['stdout', 1], ['stderr', 2]]) {
    let stream;
    Object.defineProperty(process, name, {
      configurable: true,
      enumerable: true,
      get: () => (stream ??= synchronous(target)),
      set: (value) => (stream = value),
    });
  }
}

// ---- errors, as Lambda tells them

function looksLikeError(value) {
  return ['name', 'message', 'stack'].every((key) => typeof value[key] === 'string' && value[key]);
}

function describe(error) {
  try {
    if (util.types.isNativeError(error) || looksLikeError(error)) {
      return { errorType: String(error.name), errorMessage: String(error.message), trace: String(error.stack).split('\n') };
    }
    return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
    };
  }
}

/** An error with whatever else it carries, for the log. */
function inFull(error) {
  try {
    return JSON.stringify(error instanceof Error ? error : new Error(error), (key, value) => {
      if (!(value instanceof Error)) return value;
      const { name: errorType, message: errorMessage, code, stack } = value;
      return { errorType, errorMessage, code, ...value, stack: typeof stack === 'string' ? stack.split('\n') : undefined };
    });
  } catch {
    return JSON.stringify(describe(error));
  }
}

function tooLarge(size) {
  const limit = `maximum allowed payload size (${RESPONSE_BYTES_MAX} bytes)`;
  return { errorType: 'Function.ResponseSizeTooLarge', errorMessage: `Response payload size (${size} bytes) exceeded ${limit}.`, trace: [] };
}

function dump(report) {
  const data = Buffer.from(JSON.stringify(report));
  return data.length > RESPONSE_BYTES_MAX ? Buffer.from(JSON.stringify(tooLarge(data.length))) : data;
}

/** What nobody caught: the state of the process is not known after it, so it ends. */
function fatal(title, error, status) {
  logError(title, error);
  if (current) {
    send(FATAL, current.number, dump(describe(error)));
  } else if (!ready) {
    send(INIT_ERROR, 0, dump(describe(error)));
  }
  exit(status);
}

// ---- the handler

/** Where `folder/file.export` lies. Throws RuntimeError. */
function split(name) {
  if (name.includes('..')) {
    const remedy = 'Use absolute paths when specifying root directories in handler names.';
    throw new RuntimeError('Runtime.MalformedHandlerName', `'${name}' is not a valid handler name. ${remedy}`);
  }
  const base = path.basename(name);
  const dot = base.indexOf('.');
  if (dot < 0) throw new RuntimeError('Runtime.MalformedHandlerName', 'Bad handler');
  return { folder: name.slice(0, name.length - base.length), file: base.slice(0, dot), names: base.slice(dot + 1).split('.') };
}

/** Whether the nearest package.json says that .js files are ES modules. */
function isModuleFolder(folder) {
  if (folder.endsWith('/node_modules')) return false;
  const found = path.join(folder, 'package.json');
  if (fs.existsSync(found)) {
    try {
      return JSON.parse(fs.readFileSync(found, 'utf8'))?.type === 'module';
    } catch (error) {
      console.warn(`${found} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder !== '/' && isModuleFolder(path.dirname(folder));
}

async function loadModule(root, folder, file) {
  const stem = path.resolve(root, folder, file);
  const asModule = isModuleFolder(path.dirname(stem));
  const imported = (name) => import(require('url').pathToFileURL(name).href);
  const ways = [['', require], ['.js', asModule ? imported : require], ['.mjs', imported], ['.cjs', require]];
  if (MAJOR >= 24) ways.push(['.ts', asModule ? imported : require], ['.mts', imported], ['.cts', require]);
  for (const [extension, load] of ways) {
    if (fs.statSync(stem + extension, { throwIfNoEntry: false })?.isFile()) return await load(stem + extension);
  }
  if (Module.builtinModules.includes(file)) {
    // such as fs.readFileSync, which tells secrets
    throw new RuntimeError('Runtime.ImportModuleError', `Error: Cannot find module '${file}' in the function's code`);
  }
  return require(require.resolve(file, { paths: [root, path.resolve(root, folder)] }));
}

/** The function that `name` means. Throws what the module throws, and RuntimeError. */
async function loadHandler(root, name) {
  const { folder, file, names } = split(name);
  let found;
  try {
    found = await loadModule(root, folder, file);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw Object.assign(new RuntimeError('Runtime.UserCodeSyntaxError', String(error)), { stack: error.stack });
    }
    if (error?.code === 'MODULE_NOT_FOUND') throw new RuntimeError('Runtime.ImportModuleError', String(error));
    throw error;
  }
  const within = (value) => names.reduce((inner, key) => inner?.[key], value);
  const handler = within(found) || within(found?.default);
  if (!handler) throw new RuntimeError('Runtime.HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new RuntimeError('Runtime.HandlerNotFound', `${name} is not a function`);
  if (handler[STREAMING] && handler[STREAMING] !== 'response') {
    throw new RuntimeError('Runtime.MalformedStreamingHandler', 'Only response streaming is supported.');
  }
  return handler;
}

// ---- requests

let about; // what INIT told of the function
let ready = false;
let handler;
let current = null; // the request that is served
let whenEmpty = null; // what is done once the event loop has nothing left to do

class Request {
  constructor(number, meta) {
    this.number = number;
    this.id = meta.requestId;
    this.meta = meta;
    this.waits = true; // context.callbackWaitsForEmptyEventLoop
    this.answered = false;
  }

  /** The first answer counts. It is sent a turn later: what was rejected and not handled until then is its error. */
  answer(kind, payload) {
    if (this.answered) return;
    this.answered = true;
    whenEmpty = null;
    setImmediate(() => {
      send(kind, this.number, payload);
      current = null;
      setImmediate(receive, begin);
    });
  }

  succeed(value) {
    if (this.answered) return;
    let text;
    try {
      text = JSON.stringify(value === undefined ? null : value) ?? 'null';
    } catch {
      return this.fail(new Error('Unable to stringify response body'));
    }
    const data = Buffer.from(text);
    if (data.length > RESPONSE_BYTES_MAX) return this.answer(ERROR, dump(tooLarge(data.length)));
    this.answer(RESULT, data);
  }

  fail(error) {
    if (this.answered) return;
    logError('Invoke Error', error);
    this.answer(ERROR, dump(describe(error)));
  }

  context() {
    const request = this;
    const { functionArn, deadlineMs, clientContext } = this.meta;
    return {
      get callbackWaitsForEmptyEventLoop() {
        return request.waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        request.waits = value;
      },
      functionVersion: about.functionVersion,
      functionName: about.functionName,
      memoryLimitInMB: String(about.memorySize),
      logGroupName: about.logGroupName,
      logStreamName: about.logStreamName,
      clientContext: clientContext || undefined,
      identity: undefined,
      invokedFunctionArn: functionArn,
      awsRequestId: this.id,
      tenantId: undefined,
      getRemainingTimeInMillis: () => deadlineMs - now(),
    };
  }
}

function begin({ kind, number, payload }) {
  if (kind !== INVOKE) exit(2);
  const end = payload.indexOf(10);
  whenEmpty = null;
  current = new Request(number, JSON.parse(payload.toString('utf8', 0, end)));
  const { traceId } = current.meta;
  if (traceId) process.env._X_AMZN_TRACE_ID = traceId;
  else delete process.env._X_AMZN_TRACE_ID;
  const call = handler[STREAMING] ? callStreaming : callBuffered;
  call(current, () => JSON.parse(payload.toString('utf8', end + 1)));
}

function isPromise(value) {
  return typeof value?.then === 'function';
}

/** Async, synchronous and callback handlers, and the context's older ways to answer. */
function callBuffered(request, event) {
  let called = false;
  const once = (action) => (...values) => {
    if (called) return;
    called = true;
    action(...values);
  };
  const isNothing = (error) => error === undefined || error === null;
  const done = (error, value) => (isNothing(error) ? request.succeed(value) : request.fail(error));
  const callback = once((error, value) => {
    if (isNothing(error) && request.waits) whenEmpty = () => request.succeed(value);
    else done(error, value);
  });
  const context = request.context();
  context.done = once(done);
  context.succeed = once((value) => request.succeed(value));
  context.fail = once((error) => request.fail(error ?? 'handled'));
  try {
    const result = handler(event(), context, callback);
    const value = isPromise(result) || handler.length > 2 ? null : result;
    if (isPromise(result)) result.then(context.succeed, context.fail);
    else if (MAJOR >= 24 && value !== undefined && handler.length < 3) context.succeed(value);
    whenEmpty ??= () => (handler.constructor?.name === 'AsyncFunction' ? request.fail(neverSettled()) : request.succeed(value));
  } catch (error) {
    callback(error);
  }
}

function neverSettled() {
  const cause = 'This is most commonly caused by a Promise that was never settled.';
  const more = 'For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes';
  const text = `The Lambda runtime client detected an unexpected Node.js exit code. ${cause} ${more}`;
  return new RuntimeError('Runtime.NodeJsExit', text);
}

// ---- streamed responses

let ResponseStream; // made with the first one that is needed, as streams are slow to load

function makeResponseStream() {
  const { Writable } = require('stream');
  return class ResponseStream extends Writable {
    constructor(request, highWaterMark) {
      super({ highWaterMark });
      this.request = request;
      this.begun = false;
    }

    setContentType(type) {
      if (this.begun) throw new RuntimeError('Runtime.InvalidStreamingOperation', 'Cannot set content-type, too late.');
      this.contentType = type;
    }

    /** What stands before the first byte: metadata of HttpResponseStream. */
    prepare() {
      if (this.begun) return;
      this.begun = true;
      if (this.contentType) send(HEAD, this.request.number, Buffer.from(String(this.contentType).slice(0, 256)));
      this._onBeforeFirstWrite?.((piece) => super.write(piece));
    }

    write(data, encoding, done) {
      const text = typeof data === 'string' || data instanceof Uint8Array ? data : JSON.stringify(data);
      this.prepare();
      return super.write(text, encoding, done);
    }

    end(data, encoding, done) {
      if (typeof data === 'function') return this.end(undefined, undefined, data);
      if (typeof encoding === 'function') return this.end(data, undefined, encoding);
      if (data !== undefined && data !== null) this.write(data, encoding);
      this.prepare();
      return super.end(done);
    }

    _write(data, encoding, done) {
      if (this.request.answered) return done(new Error('The response was sent already.'));
      for (let start = 0; start < data.length; start += CHUNK_BYTES_MAX) {
        send(CHUNK, this.request.number, data.subarray(start, start + CHUNK_BYTES_MAX));
      }
      done();
    }
  };
}

async function callStreaming(request, event) {
  try {
    ResponseStream ??= makeResponseStream();
    const stream = new ResponseStream(request, Number.parseInt(handler[HIGH_WATER_MARK], 10) || undefined);
    const finished = new Promise((resolve, reject) => stream.once('finish', resolve).once('error', reject));
    finished.catch(() => {}); // told below, if the handler did not fail before
    whenEmpty = () => request.fail(new Error('Response stream is not finished.'));
    const result = handler(event(), stream, request.context());
    if (!isPromise(result)) throw new Error('Streaming does not support non-async handlers.');
    if ((await result) !== undefined) console.warn('Streaming handlers ignore return values.');
    await finished;
    request.answer(RESULT, Buffer.alloc(0));
  } catch (error) {
    request.fail(error);
  }
}

const awslambda = {
  streamifyResponse(streaming, options) {
    streaming[STREAMING] = 'response';
    if (typeof options?.highWaterMark === 'number') streaming[HIGH_WATER_MARK] = options.highWaterMark;
    return streaming;
  },
  HttpResponseStream: {
    from(stream, metadata) {
      stream.setContentType(HTTP_RESPONSE);
      const prelude = JSON.stringify(metadata);
      stream._onBeforeFirstWrite = (write) => {
        write(prelude);
        write(new Uint8Array(8));
      };
      return stream;
    },
  },
};

// ---- start

/** The environment, folders and globals as a handler expects them; returns where its code lies. */
function prepare() {
  Object.assign(process.env, about.environment);
  const lambdas = [`/opt/nodejs/node${MAJOR}/node_modules`, '/opt/nodejs/node_modules', '/var/runtime/node_modules'];
  process.env.NODE_PATH ||= lambdas.join(':');
  Module._initPaths(); // reads NODE_PATH again
  if (about.environment?.NODE_OPTIONS?.includes('--enable-source-maps')) process.setSourceMapsEnabled(true);
  const root = process.env.LAMBDA_TASK_ROOT || process.cwd();
  process.chdir(root);
  process.argv.length = 2;
  globalThis.awslambda = awslambda;
  return root;
}

receive(({ kind, payload }) => {
  if (kind !== INIT) exit(2);
  about = JSON.parse(payload);
  prepareOutput();
  process.on('uncaughtException', (error) => fatal('Uncaught Exception', error, 129));
  process.on('unhandledRejection', (reason) => {
    const error = new RuntimeError('Runtime.UnhandledPromiseRejection', String(reason));
    fatal('Unhandled Promise Rejection', Object.assign(error, { reason }), 128);
  });
  process.on('beforeExit', () => {
    const action = whenEmpty;
    whenEmpty = null;
    action?.();
  });
  loadHandler(prepare(), about.handler).then(
    (found) => {
      handler = found;
      setImmediate(() => {
        ready = true;
        send(READY, 0, Buffer.alloc(0));
        setImmediate(receive, begin);
      });
    },
    (error) => fatal('Uncaught Exception', error, 1),
  );
});
