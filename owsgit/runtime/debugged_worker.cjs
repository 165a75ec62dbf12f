// The managed Node.js runtime with a debugger: carries the inspector's connections out of the sandbox, then goes on as
// node_worker.cjs.
//
// Arguments: the port to dial, "wait" or "go", node_worker.cjs, and the number of its socket. The node passes on what
// comes to a line that was dialled; the inspector of this process listens on this network's own loopback address. Lines
// are carried by a thread of their own: the main one stands still at breakpoints. Only `owsgit dev` starts this.
'use strict';

const inspector = require('node:inspector');
const { Worker } = require('node:worker_threads');

const LINES = 4; // that wait for an editor, which asks over several

function carry({ port, inspectorPort, lines }) {
  const net = require('node:net');
  const host = '127.0.0.1';
  const dial = () => {
    const line = net.connect(port, host);
    line.on('error', () => {});
    line.once('readable', () => {
      dial();
      const there = net.connect(inspectorPort, host);
      there.on('error', () => line.destroy());
      line.on('error', () => there.destroy());
      line.pipe(there).pipe(line);
    });
  };
  for (let count = 0; count < lines; count += 1) dial();
}

const [port, wait, script, number] = process.argv.slice(2);
const inspectorPort = Number(new URL(inspector.url()).port);
const data = JSON.stringify({ port: Number(port), inspectorPort, lines: LINES });
new Worker(`(${carry})(${data})`, { eval: true }).unref();
if (wait === 'wait') inspector.waitForDebugger();
process.argv.splice(1, Infinity, script, number);
require(script);
