"""nginx, node and Python as servers, each with clients beside it."""

import hashlib

import harness
import oci

NGINX = r"""
set -eu
mkdir -p /tmp/n/www
cat >/tmp/n/nginx.conf <<'EOF'
worker_processes 2;
pid /tmp/n/nginx.pid;
error_log /tmp/n/error.log info;
events { worker_connections 256; }
http {
    access_log /tmp/n/access.log;
    sendfile on;
    tcp_nopush on;
    gzip on;
    gzip_types text/plain application/octet-stream;
    default_type text/plain;
    server {
        listen 127.0.0.1:8080;
        root /tmp/n/www;
        location /echo { return 200 "one $arg_x\n"; }
    }
    server {
        listen 127.0.0.1:8081;
        location / { proxy_pass http://127.0.0.1:8080; }
    }
}
EOF
seq 200000 >/tmp/n/www/large
chmod 755 /tmp/n
nginx -c /tmp/n/nginx.conf
"""


class Program(oci.OciCase):
    def bash(self, script, timeout=300, **more):
        return self.run_shell(script, timeout=timeout, root=harness.programs_root(), shell="/bin/bash", **more)

    def run_in_root(self, *arguments):
        return self.run_container(self.bundle(list(arguments), root=harness.programs_root()), timeout=300)


class Nginx(Program):
    def test_files_proxies_and_a_reload(self):
        done = self.bash(NGINX + r"""
curl -sS http://127.0.0.1:8080/large | sha256sum | cut -d' ' -f1
curl -sS --compressed http://127.0.0.1:8081/large | sha256sum | cut -d' ' -f1
curl -sS -r 100-109 http://127.0.0.1:8080/large | wc -c
curl -sS -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/missing
for c in 1 2 3 4; do
    curl -sS "http://127.0.0.1:8081/echo?x=[1-100]" >/tmp/n/out.$c &
    pids="${pids:-} $!"
done
for p in $pids; do wait $p; done
cat /tmp/n/out.* | sort | uniq -c | awk '$1 == 4' | wc -l
master=$(cat /tmp/n/nginx.pid)
old=$(pgrep -P $master)
sed -i 's/"one/"two/' /tmp/n/nginx.conf
nginx -c /tmp/n/nginx.conf -s reload
for i in $(seq 600); do
    [ "$(curl -sS 'http://127.0.0.1:8080/echo?x=y')" = "two y" ] && break
    sleep 0.05
done
for p in $old; do while kill -0 $p 2>/dev/null; do sleep 0.05; done; done
pgrep -P $master | wc -l
nginx -c /tmp/n/nginx.conf -s quit
while kill -0 $master 2>/dev/null; do sleep 0.05; done
wc -l </tmp/n/access.log | awk '$1 > 800 { print "logged" }'
grep -c -E '\[(alert|crit|emerg)\]' /tmp/n/error.log || true
""")
        large = hashlib.sha256("".join(f"{i}\n" for i in range(1, 200001)).encode()).hexdigest()
        self.assert_clean(done, f"{large}\n{large}\n10\n404\n100\n2\nlogged\n0\n")


class Node(Program):
    def test_an_http_server_and_its_clients(self):
        self.assert_clean(self.run_in_root("/usr/bin/node", "-e", """
const http = require('http'), crypto = require('crypto');
const body = crypto.createHash('sha256').update('x'.repeat(1e5)).digest('hex');
const server = http.createServer((request, response) => {
    const hash = crypto.createHash('sha256');
    request.on('data', d => hash.update(d)).on('end', () => response.end(hash.digest('hex')));
}).listen(0, '127.0.0.1', () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 20 });
    let left = 300, right = 0;
    for (let i = 0; i < 300; i++) {
        const request = http.request({ host: '127.0.0.1', port: server.address().port, method: 'POST', agent }, response => {
            let text = '';
            response.on('data', d => text += d).on('end', () => {
                right += text === body;
                if (--left === 0) { console.log(right); agent.destroy(); server.close(); }
            });
        });
        request.end('x'.repeat(1e5));
    }
});
"""), "300\n")

    def test_worker_threads_and_shared_memory(self):
        self.assert_clean(self.run_in_root("/usr/bin/node", "-e", """
const { Worker } = require('worker_threads');
const shared = new Int32Array(new SharedArrayBuffer(8));
const code = "const { workerData: s } = require('worker_threads'); for (let i = 0; i < 10000; i++) Atomics.add(s, 0, 1);";
let left = 4;
for (let i = 0; i < 4; i++)
    new Worker(code, { eval: true, workerData: shared }).on('exit', () => { if (--left === 0) console.log(shared[0]); });
"""), "40000\n")

    def test_a_cluster_of_processes(self):
        self.assert_clean(self.bash(r"""
cat >/tmp/c.js <<'EOF'
const cluster = require('cluster'), http = require('http');
if (cluster.isPrimary) {
    let up = 0, answers = 0;
    const seen = {};
    for (let i = 0; i < 3; i++) cluster.fork();
    cluster.on('listening', () => {
        if (++up < 3) return;
        for (let i = 0; i < 90; i++) http.get({ host: '127.0.0.1', port: 8000, agent: false }, r => {
            let t = '';
            r.on('data', d => t += d).on('end', () => {
                seen[t] = (seen[t] || 0) + 1;
                if (++answers === 90) { console.log(Object.keys(seen).length, answers); cluster.disconnect(); }
            });
        });
    });
} else http.createServer((q, r) => r.end(String(process.pid))).listen(8000, '127.0.0.1');
EOF
node /tmp/c.js
"""), "3 90\n")

    def test_files_streams_and_child_processes(self):
        self.assert_clean(self.run_in_root("/usr/bin/node", "-e", """
const fs = require('fs'), { spawn, execFileSync } = require('child_process'), { pipeline } = require('stream/promises'), zlib = require('zlib');
(async () => {
    fs.writeFileSync('/tmp/a', Buffer.alloc(3e6, 'abc'));
    await pipeline(fs.createReadStream('/tmp/a'), zlib.createGzip(), fs.createWriteStream('/tmp/a.gz'));
    const gunzip = spawn('gunzip', ['-c', '/tmp/a.gz']);
    let n = 0;
    for await (const d of gunzip.stdout) n += d.length;
    console.log(n, execFileSync('sh', ['-c', 'echo $((6 * 7))']).toString().trim());
    const watcher = fs.watch('/tmp/a', () => { console.log('seen'); watcher.close(); });
    fs.appendFileSync('/tmp/a', 'x');
})();
"""), "3000000 42\nseen\n")


class Python(Program):
    def python(self, code):
        return self.run_in_root("/usr/bin/python3", "-c", code)

    def test_a_threading_http_server(self):
        self.assert_clean(self.python("""
import concurrent.futures, http.server, threading, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = self.path.encode() * 1000
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(('127.0.0.1', 0), Handler)
threading.Thread(target=server.serve_forever).start()
def get(i):
    with urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}/{i}') as r: return r.read() == f'/{i}'.encode() * 1000
with concurrent.futures.ThreadPoolExecutor(16) as pool: print(sum(pool.map(get, range(300))))
server.shutdown()
"""), "300\n")

    def test_asyncio_servers_and_subprocesses(self):
        self.assert_clean(self.python("""
import asyncio
async def handle(reader, writer):
    while line := await reader.readline(): writer.write(line.upper()); await writer.drain()
    writer.close()
async def client(port, i):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    for n in range(20):
        writer.write(f'client {i} line {n}\\n'.encode())
        assert await reader.readline() == f'CLIENT {i} LINE {n}\\n'.encode()
    writer.close()
    return 20
async def main():
    server = await asyncio.start_server(handle, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    print(sum(await asyncio.gather(*(client(port, i) for i in range(50)))))
    processes = [await asyncio.create_subprocess_exec('sh', '-c', f'exit {i}') for i in range(10)]
    print([await p.wait() for p in processes])
    server.close()
asyncio.run(main())
"""), "1000\n[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n")

    def test_processes_that_share_memory(self):
        self.assert_clean(self.python("""
import multiprocessing as mp
from multiprocessing import shared_memory
def work(name, lock, queue, i):
    block = shared_memory.SharedMemory(name)
    for _ in range(200):
        with lock: block.buf[0:4] = (int.from_bytes(block.buf[0:4], 'little') + 1).to_bytes(4, 'little')
    block.close(); queue.put(i)
if __name__ == '__main__':
    block = shared_memory.SharedMemory(create=True, size=100)
    lock, queue = mp.Lock(), mp.Queue()
    workers = [mp.Process(target=work, args=(block.name, lock, queue, i)) for i in range(4)]
    for w in workers: w.start()
    print(sorted(queue.get() for _ in workers))
    for w in workers: w.join()
    print(int.from_bytes(block.buf[0:4], 'little'))
    block.close(); block.unlink()
"""), "[0, 1, 2, 3]\n800\n")
