"""PostgreSQL, Redis, SQLite: answers, crashes and what is there afterwards."""

import hashlib

import harness
import oci

POSTGRES = r"""
set -eu
export PGDATA=/tmp/pg PGHOST=/tmp PGUSER=postgres LC_ALL=C
bin=/usr/lib/postgresql/15/bin
as="setpriv --reuid=postgres --regid=postgres --clear-groups"  # not a function: $! is to be the server
sql() { $bin/psql -qAt -v ON_ERROR_STOP=1 "$@"; }
start() {
    $as $bin/postgres -c unix_socket_directories=/tmp -c listen_addresses=127.0.0.1 SETTINGS >>/tmp/pg.log 2>&1 &
    server=$!
    for i in $(seq 600); do
        if $bin/pg_isready -q; then return; fi
        kill -0 $server || { cat /tmp/pg.log; exit 1; }
        sleep 0.05
    done
    cat /tmp/pg.log
    exit 1
}
install -d -o postgres -m 700 /tmp/pg
$as $bin/initdb -A trust >/tmp/initdb.log 2>&1 || { cat /tmp/initdb.log; exit 1; }
touch /tmp/pg.log
chown postgres /tmp/pg.log
start
"""

# What pgbench's transactions keep equal, whatever happened to them.
CONSISTENT = ("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
              " AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)"
              " AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)")


class Program(oci.OciCase):
    def bash(self, script, timeout=300, **more):
        return self.run_shell(script, timeout=timeout, root=harness.programs_root(), shell="/bin/bash", **more)


class Postgres(Program):
    def postgres(self, script, settings=""):
        return self.bash(POSTGRES.replace("SETTINGS", settings) + script)

    def test_pgbench_queries_and_a_clean_stop(self):
        done = self.postgres(rf"""
$bin/pgbench -i -q -s 2 >/dev/null 2>&1
$bin/pgbench -c 4 -j 2 -T 3 -n >/tmp/bench.log 2>&1 || {{ cat /tmp/bench.log; exit 1; }}
grep -c 'number of failed transactions: 0 ' /tmp/bench.log
sql -c "{CONSISTENT}"
sql -c "SELECT count(*) > 100 FROM pgbench_history"
sql -c "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
        SELECT count(*), sum(aid) FROM pgbench_accounts"
sql -c "CREATE EXTENSION pgcrypto; SELECT encode(digest('moat', 'sha256'), 'hex')"
printf 'a\tb\n%s\t%s\n' 1 2 | sql -c "CREATE TABLE t (x text, y text); COPY t FROM STDIN" -c "SELECT string_agg(x || y, ',') FROM t"
sql -h 127.0.0.1 -c "SELECT inet_client_addr()"
kill -INT $server
wait $server
echo stopped $?
grep -c 'database system is shut down' /tmp/pg.log
ls /tmp/pg/postmaster.pid 2>/dev/null || true
cat /proc/sysvipc/shm | wc -l
""")
        lines = done.stdout.splitlines()
        self.assertEqual(done.returncode, 0, f"stdout: {done.stdout!r}\nstderr: {done.stderr!r}")
        self.assertEqual(lines[:4], ["1", "t", "t", "200000|20000100000"], done.stderr)
        self.assertEqual(lines[4:], [hashlib.sha256(b"moat").hexdigest(), "ab,12", "127.0.0.1", "stopped 0", "1", "1"], done.stderr)

    def recovers(self, settings=""):
        done = self.postgres(rf"""
$bin/pgbench -i -q -s 1 >/dev/null 2>&1
$bin/pgbench -c 4 -j 2 -T 30 -n >/tmp/bench.log 2>&1 &
while [ "$(sql -c 'SELECT count(*) FROM pgbench_history')" -lt 200 ]; do sleep 0.1; done
before=$(sql -c 'SELECT count(*) FROM pgbench_history')
kill -KILL $server
wait $server || echo killed $?
wait || true
start
[ "$(sql -c 'SELECT count(*) FROM pgbench_history')" -ge "$before" ] && echo kept
sql -c "{CONSISTENT}"
grep -c 'automatic recovery in progress' /tmp/pg.log
sql -c "VACUUM" -c "CHECKPOINT" -c "SELECT 'usable'"
kill -TERM $server
wait $server
echo stopped $?
""", settings)
        self.assert_clean(done, "killed 137\nkept\nt\n1\nusable\nstopped 0\n")

    def test_recovery_after_the_postmaster_was_killed(self):
        self.recovers()

    def test_recovery_with_system_v_shared_memory(self):
        self.recovers("-c shared_memory_type=sysv -c dynamic_shared_memory_type=sysv")


REDIS = r"""
set -eu
mkdir -p /tmp/r
start() {
    redis-server --port 6379 --bind 127.0.0.1 --dir /tmp/r --enable-debug-command yes SETTINGS >>/tmp/r.log 2>&1 &
    server=$!
    for i in $(seq 600); do
        if [ "$(redis-cli ping 2>/dev/null)" = PONG ]; then return; fi
        kill -0 $server || { cat /tmp/r.log; exit 1; }
        sleep 0.05
    done
    cat /tmp/r.log
    exit 1
}
info() { redis-cli info persistence | tr -d '\r' | sed -n "s/^$1://p"; }
fill() {
    redis-benchmark -q -n 10000 -c 20 incr counter >/dev/null
    redis-benchmark -q -n 5000 -c 20 -P 8 -r 100000 lpush list:__rand_int__ value:__rand_int__ >/dev/null
    redis-benchmark -q -n 5000 -c 20 -r 1000 -t set,get,sadd,hset,zadd,mset >/dev/null
}
start
fill
redis-cli get counter
"""


class Redis(Program):
    def redis(self, script, settings):
        return self.bash(REDIS.replace("SETTINGS", settings) + script)

    def test_a_dump_in_the_background(self):
        # BGSAVE forks; what is written meanwhile is not in the dump, what was there before is.
        done = self.redis(r"""
digest=$(redis-cli debug digest)
redis-cli bgsave
redis-benchmark -q -n 2000 -c 10 incr later >/dev/null
while [ "$(info rdb_bgsave_in_progress)" = 1 ]; do sleep 0.05; done
info rdb_last_bgsave_status
kill -KILL $server
wait $server || true
start
redis-cli get counter
redis-cli del later >/dev/null
[ "$(redis-cli debug digest)" = "$digest" ] && echo same
redis-cli shutdown nosave
wait $server
echo stopped $?
""", "--save '' --appendonly no")
        self.assert_clean(done, "10000\nBackground saving started\nok\n10000\nsame\nstopped 0\n")

    def test_an_append_only_file(self):
        done = self.redis(r"""
redis-cli bgrewriteaof
redis-benchmark -q -n 2000 -c 10 incr counter >/dev/null
while [ "$(info aof_rewrite_in_progress)" = 1 ] || [ "$(info aof_rewrite_scheduled)" = 1 ]; do sleep 0.05; done
info aof_last_bgrewrite_status
digest=$(redis-cli debug digest)
kill -KILL $server
wait $server || true
redis-check-aof /tmp/r/appendonlydir/*.manifest >/tmp/check.log 2>&1 || { cat /tmp/check.log; exit 1; }
start
redis-cli get counter
[ "$(redis-cli debug digest)" = "$digest" ] && echo same
""", "--save '' --appendonly yes --appendfsync always")
        self.assert_clean(done, "10000\nBackground append only file rewriting started\nok\n12000\nsame\n")

    def test_scripts_transactions_and_subscriptions(self):
        done = self.redis(r"""
redis-cli eval 'local s = 0; for i = 1, 1000 do s = s + redis.call("incr", KEYS[1]) end; return s' 1 scripted
printf 'MULTI\nINCR a\nINCR a\nEXEC\n' | redis-cli | tail -2 | tr '\n' ' '
mkfifo /tmp/heard
redis-cli subscribe news >/tmp/heard &
exec 3</tmp/heard
for i in 1 2 3; do read -r _ <&3; done
redis-cli publish news hello
read -r kind <&3; read -r channel <&3; read -r text <&3
echo $kind $channel $text
""", "--save '' --appendonly no")
        self.assert_clean(done, "10000\n500500\n1 2 1\nmessage news hello\n")


class Sqlite(Program):
    def test_writers_beside_each_other_in_wal_mode(self):
        done = self.bash(r"""
set -eu
cd /tmp
sqlite3 x.db "PRAGMA journal_mode=WAL; CREATE TABLE t (who INTEGER, n INTEGER); CREATE INDEX i ON t (who, n);"
for who in 1 2 3; do
    (for n in $(seq 60); do echo "PRAGMA busy_timeout=60000; BEGIN IMMEDIATE; INSERT INTO t VALUES ($who, $n); COMMIT;"; done | sqlite3 x.db >/dev/null) &
    pids="${pids:-} $!"
done
for p in $pids; do wait $p; done
sqlite3 x.db "SELECT who, count(*), sum(n) FROM t GROUP BY who; PRAGMA integrity_check; PRAGMA wal_checkpoint(TRUNCATE);"
""")
        self.assert_clean(done, "wal\n1|60|1830\n2|60|1830\n3|60|1830\nok\n0|0|0\n")

    def test_a_killed_writer_leaves_a_whole_database(self):
        done = self.bash(r"""
set -eu
cd /tmp
sqlite3 x.db "CREATE TABLE t (n INTEGER PRIMARY KEY, half INTEGER);"
(n=0; while :; do n=$((n + 1)); echo "BEGIN; INSERT INTO t VALUES ($n * 2, 0); INSERT INTO t VALUES ($n * 2 + 1, 1); COMMIT; SELECT $n;"; done |
    exec sqlite3 x.db >committed) &
feeder=$!
while [ "$(wc -l <committed)" -lt 100 ]; do sleep 0.05; done
pkill -KILL -x sqlite3 || true
wait $feeder || true
sqlite3 x.db "PRAGMA integrity_check; SELECT sum(half) * 2 = count(*), count(*) >= $(wc -l <committed) * 2 FROM t;"
""")
        self.assert_clean(done, "ok\n1|1\n")
