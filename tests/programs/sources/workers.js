// worker_threads and child_process.
const { Worker } = require('worker_threads');
const { execFile, execSync, fork, spawn } = require('child_process');

if (process.argv[2] === 'child') {
  process.on('message', (n) => { process.send(n * 2); process.disconnect(); });
} else {
  main();
}

function worker(data) {
  const code = `const { parentPort, workerData } = require('worker_threads');
    let sum = 0; for (let i = 0; i < workerData.count; i++) sum += i;
    Atomics.add(new Int32Array(workerData.shared), 0, 1);
    parentPort.postMessage(sum);`;
  return new Promise((resolve, reject) => {
    const thread = new Worker(code, { eval: true, workerData: data });
    thread.on('message', resolve);
    thread.on('error', reject);
  });
}

async function main() {
  const shared = new SharedArrayBuffer(4);
  const counts = [10, 100, 1000, 100000];
  console.log(await Promise.all(counts.map((count) => worker({ count, shared }))));
  console.log(new Int32Array(shared)[0]);
  console.log(String(execSync('echo from a shell')).trim());
  console.log(await new Promise((done) => execFile('sh', ['-c', 'exit 3'], (error) => done(error.code))));
  const child = fork(__filename, ['child']);
  child.send(21);
  console.log(await new Promise((done) => child.on('message', done)));
  const sleeper = spawn('sleep', ['60']);
  const end = new Promise((done) => sleeper.on('exit', (code, signal) => done([code, signal])));
  sleeper.kill('SIGTERM');
  console.log(await end);
  const cat = spawn('cat');
  let size = 0;
  cat.stdout.on('data', (piece) => { size += piece.length; });
  cat.stdin.end('x'.repeat(300000));
  console.log(await new Promise((done) => cat.on('close', () => done(size))));
  process.on('SIGUSR2', () => { console.log('signal'); process.exit(4); });
  setInterval(() => {}, 1000);
  process.kill(process.pid, 'SIGUSR2');
}
