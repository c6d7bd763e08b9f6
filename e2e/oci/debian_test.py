"""Real programs of a Debian minbase root: bash with pipes and job control, tar, find, gcc, python3."""

import subprocess

import harness
import oci


class Debian(oci.OciCase):
    def bash(self, script, timeout=120, **more):
        return self.run_shell(script, timeout=timeout, root=harness.debian_root(), shell="/bin/bash", **more)

    def test_bash_pipelines(self):
        self.assert_clean(self.bash("seq 1 1000 | grep 7 | sort -rn | head -3 | tr '\\n' ' '; echo; echo ${PIPESTATUS[@]}"),
                          "997 987 979 \n0\n")

    def test_bash_pipe_status_and_sigpipe(self):
        self.assert_clean(self.bash("yes | head -1; echo ${PIPESTATUS[@]}; false | true; echo ${PIPESTATUS[@]}"), "y\n141 0\n1 0\n")

    def test_bash_process_substitution_and_here_documents(self):
        self.assert_clean(self.bash("diff <(seq 3) <(seq 4); cat <<< here; cat <<EOF\n$((6 * 7))\nEOF\n"), "3a4\n> 4\nhere\n42\n")

    def test_bash_subshells_and_command_substitution(self):
        self.assert_clean(self.bash("n=0; for i in $(seq 100); do n=$((n + $(echo $i))); done; echo $n; (exit 3); echo $?"), "5050\n3\n")

    def test_bash_traps_and_wait(self):
        self.assert_clean(self.bash("trap 'echo usr1' USR1; (sleep 0.1; kill -USR1 $$) & wait $!; echo $?; wait; "
                                    "trap 'echo bye' EXIT; exit 4"), "usr1\n138\nbye\n", status=4)

    def test_bash_background_jobs(self):
        self.assert_clean(self.bash("for i in 1 2 3 4 5 6; do (exit $i) & pids+=($!); done; for p in ${pids[@]}; do wait $p; echo -n \"$? \"; done"),
                          "1 2 3 4 5 6 ")

    def test_bash_job_control(self):
        # -m gives each job a process group of its own, also without a terminal.
        done = self.bash("set -m; sleep 1000 & kill -STOP %1; while ! jobs | grep -q Stopped; do :; done; jobs | tr -s ' ' | cut -d' ' -f2,3; "
                         "bg >/dev/null; while ! jobs | grep -q Running; do :; done; kill %1; wait %1; echo $?")
        self.assert_clean(done, "Stopped sleep\n143\n")

    def test_bash_waits_for_a_stopped_child_to_continue(self):
        self.assert_clean(self.bash("(kill -STOP $BASHPID; exit 6) & p=$!; while [ \"$(cut -d' ' -f3 /proc/$p/stat)\" != T ]; do :; done; "
                                    "kill -CONT $p; wait $p; echo $?"), "6\n")

    def test_bash_coprocess(self):
        self.assert_clean(self.bash("coproc cat; echo there and back >&${COPROC[1]}; read -r line <&${COPROC[0]}; echo $line; "
                                    "exec {COPROC[1]}>&-; wait $COPROC_PID; echo $?"), "there and back\n0\n")

    def test_tar_packs_and_unpacks(self):
        script = ("cd /tmp && mkdir -p a/b/c && for i in $(seq 300); do echo $i > a/b/$i; done && ln -s b a/l && ln a/b/1 a/hard && "
                  "chmod 640 a/b/2 && touch -d 2020-01-02 a/b/3 && tar czf x.tgz a && mkdir out && tar xzf x.tgz -C out && "
                  "diff -r a out/a && readlink out/a/l && stat -c '%a %h' out/a/b/2 out/a/hard && stat -c %y out/a/b/3 | cut -d' ' -f1 && "
                  "tar tf x.tgz | wc -l")
        self.assert_clean(self.bash(script), "b\n640 1\n644 2\n2020-01-02\n305\n")

    def test_tar_of_the_roots_own_files(self):
        self.assert_clean(self.bash("tar cf - -C / etc usr/bin 2>/dev/null | tar tf - | grep -c -E '^(etc/passwd|usr/bin/bash)$'"), "2\n")

    def test_find_over_the_root(self):
        expected = subprocess.run(["find", "usr/lib/python3.11", "-xdev", "-type", "f", "-name", "*.py"], cwd=harness.debian_root(),
                                      stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
        self.assertGreater(expected, 500)
        self.assert_clean(self.bash("cd /; find usr/lib/python3.11 -xdev -type f -name '*.py' | wc -l"), f"{expected}\n")

    def test_find_with_tests_and_exec(self):
        self.assert_clean(self.bash("cd /tmp && mkdir d && touch d/{1..20} && echo x > d/7 && find d -type f -size +0 -exec basename {} \\; && "
                                    "find d -type f -empty -delete && ls d && find d -newer /etc/passwd | sort | tr '\\n' ' '"), "7\n7\nd d/7 ")

    def test_gcc_compiles_and_runs_hello_world(self):
        script = ("cd /tmp && printf '#include <stdio.h>\\nint main(void) { printf(\"hello %%d\\\\n\", 6 * 7); return 3; }\\n' > hello.c && "
                  "gcc -O2 -Wall -o hello hello.c && ./hello; echo $?; gcc -static -o hello hello.c && ./hello")
        # /tmp is a tmpfs of the spec without noexec, so programs may run there.
        self.assert_clean(self.bash(script, timeout=240), "hello 42\n3\nhello 42\n", status=3)

    def test_gcc_threads(self):
        source = r"""
#include <pthread.h>
#include <stdio.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long total;
static void *run(void *arg) {
    for (int i = 0; i < 20000; i++) { pthread_mutex_lock(&lock); total++; pthread_mutex_unlock(&lock); }
    return arg;
}
int main(void) {
    pthread_t t[8];
    for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, run, 0);
    for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
    printf("%ld\n", total);
}
"""
        self.assert_clean(self.bash(f"cd /tmp && cat > t.c <<'EOF'\n{source}EOF\ngcc -O1 -pthread -o t t.c && ./t", timeout=240), "160000\n")

    def python(self, code, **more):
        container = self.bundle(["/usr/bin/python3", "-c", code], root=harness.debian_root(), **more)
        return self.run_container(container, timeout=120)

    def test_python_one_liner(self):
        self.assert_clean(self.python("import sys, json; print(json.dumps({'sum': sum(range(1000))})); sys.exit(5)"), '{"sum": 499500}\n', status=5)

    def test_python_subprocess_threads_and_sockets(self):
        code = """
import socket, subprocess, threading
out = subprocess.run(['/bin/sh', '-c', 'cat; exit 2'], input=b'through', capture_output=True)
print(out.returncode, out.stdout)
server = socket.create_server(('127.0.0.1', 0))
def serve():
    peer, _ = server.accept()
    peer.sendall(peer.recv(100).upper())
    peer.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.sendall(b'over tcp')
print(client.recv(100))
thread.join()
"""
        self.assert_clean(self.python(code), "2 b'through'\nb'OVER TCP'\n")

    def test_python_files_maps_and_signals(self):
        code = """
import mmap, os, signal, tempfile, time
with tempfile.TemporaryDirectory() as d:
    p = os.path.join(d, 'f')
    with open(p, 'wb') as f: f.write(b'a' * 10000)
    with open(p, 'r+b') as f:
        m = mmap.mmap(f.fileno(), 0); m[5000:5003] = b'XYZ'; m.flush(); m.close()
    with open(p, 'rb') as f: print(f.read()[4999:5004])
got = []
signal.signal(signal.SIGALRM, lambda n, f: got.append(n))
signal.setitimer(signal.ITIMER_REAL, 0.05)
while not got: time.sleep(1)
print(got)
pid = os.fork()
if pid == 0: os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        self.assert_clean(self.python(code), "b'aXYZa'\n[14]\n9\n")

    def test_python_multiprocessing(self):
        self.assert_clean(self.python("from multiprocessing import Pool\nif __name__ == '__main__':\n"
                                      "    with Pool(4) as p: print(sum(p.map(abs, range(-500, 500))))"), "250000\n")

    def test_dpkg_knows_its_packages(self):
        self.assert_clean(self.bash("dpkg -s bash | grep ^Status; dpkg -l | grep -c ^ii | awk '$1 > 50 { print \"many\" }'"),
                          "Status: install ok installed\nmany\n")
