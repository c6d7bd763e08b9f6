#!/usr/bin/env bash
# run-demo.sh (`make run`): a pod of two containers over CRI, in the sandbox, from nothing but this build.
#
# Starts moatd without a configuration file on a private socket and state directory, makes an OCI image of
# Debian's busybox, loads it, and drives the rest with crictl, as kubelet would. Everything is taken down
# again at the end, unless KEEP=1: then moatd and the pod stay, and how to reach them is printed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MOAT_BUILD:-${MOAT_BUILD_ROOT:-$root/build}/release}
keep=${KEEP:-}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
die() {
    echo "run-demo: $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || die "pods need root: cgroups, namespaces, mounts"
for program in moatd moat moat-sentry moat-gofer; do
    [ -x "$build/$program" ] || die "no $build/$program: run 'make build'"
done
crictl=$("$root/scripts/go-tool.sh" crictl)

dir=$(mktemp -d /tmp/moat-demo.XXXXXX)
chmod 755 "$dir"
socket=$dir/moatd.sock
moatd_pid=
pod=

client() { "$crictl" --config "$dir/crictl.yaml" "$@"; }

finish() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ] && [ -s "$dir/moatd.log" ]; then
        say "moatd said, last:"
        tail -n 20 "$dir/moatd.log"
    fi
    if [ -n "$moatd_pid" ] && kill -0 "$moatd_pid" 2>/dev/null; then
        if [ -n "$pod" ]; then
            client stopp "$pod" >/dev/null || status=1
            client rmp "$pod" >/dev/null || status=1
        fi
        kill "$moatd_pid"
        wait "$moatd_pid" || true
    fi
    rm -rf "$dir" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "moatd, with no configuration file, on $socket"
# Its own session, so that ^C in this terminal reaches this script alone and KEEP=1 outlives it.
setsid "$build/moatd" --socket "unix://$socket" --root "$dir/lib" --state "$dir/run" >"$dir/moatd.log" 2>&1 </dev/null &
moatd_pid=$!
cat >"$dir/crictl.yaml" <<EOF
runtime-endpoint: unix://$socket
image-endpoint: unix://$socket
timeout: 60
EOF
deadline=$((SECONDS + 30))
until client version >"$dir/version" 2>"$dir/version.err"; do
    kill -0 "$moatd_pid" 2>/dev/null || die "moatd ended"
    [ "$SECONDS" -lt "$deadline" ] || die "moatd does not answer: $(cat "$dir/version.err")"
    sleep 0.05
done
cat "$dir/version"

say "an image of Debian's busybox-static, loaded from an OCI archive"
image=moat.test/busybox:latest
"$root/e2e/images/mkimage.py" archive busybox "$dir/busybox.tar" --ref "$image"
"$build/moatd" --root "$dir/lib" image load "$dir/busybox.tar"
client images

mkdir "$dir/logs"
cat >"$dir/pod.json" <<EOF
{
  "metadata": {"name": "demo", "namespace": "default", "uid": "demo-$$", "attempt": 1},
  "hostname": "demo",
  "log_directory": "$dir/logs",
  "linux": {}
}
EOF
# Each command as it would be typed, so that the log reads like a terminal.
cat >"$dir/look.sh" <<'EOF'
look() { echo; echo "\$ $*"; "$@" 2>&1; }
look uname -a
look cat /proc/version
look id
look dmesg
look ps
look mount
echo; echo '$ wget -q -O - http://127.0.0.1:8080/        (the other container)'
until wget -q -O - http://127.0.0.1:8080/ 2>/dev/null; do usleep 20000; done
echo; echo "-- end --"
exec sleep 1000000
EOF
python3 - "$dir" "$image" <<'EOF'
import json, sys
directory, image = sys.argv[1:]
def container(name, command, mounts=()):
    config = {"metadata": {"name": name}, "image": {"image": image}, "command": ["/bin/sh", *command],
              "mounts": list(mounts), "log_path": name + ".log", "linux": {}}
    with open(f"{directory}/{name}.json", "w") as out:
        json.dump(config, out)
container("look", ["/look.sh"], [{"container_path": "/look.sh", "host_path": directory + "/look.sh", "readonly": True}])
container("web", ["-c", "mkdir /www && echo 'hello from the container next door' > /www/index.html && exec httpd -f -p 127.0.0.1:8080 -h /www"])
EOF

say "a pod of two containers"
before=$(python3 "$root/e2e/lib/host.py" pids moat-sentry moat-gofer)
started=$(date +%s%N)
pod=$(client runp "$dir/pod.json")
look=$(client create "$pod" "$dir/look.json" "$dir/pod.json")
client start "$look" >/dev/null
web=$(client create "$pod" "$dir/web.json" "$dir/pod.json")
client start "$web" >/dev/null
deadline=$((SECONDS + 60))
until grep -q -e '-- end --' "$dir/logs/look.log" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || {
        cat "$dir/logs"/*.log 2>/dev/null || true
        die "the container did not come to its end"
    }
    sleep 0.05
done
client pods
client ps

say "what the first container printed (crictl logs): the kernel it sees is moat's"
client logs "$look" | grep -v -e '-- end --'

say "a command in the second container (ExecSync)"
client exec --sync "$web" /bin/sh -c 'hostname; cat /proc/1/comm'

say "numbers"
first=$(head -n 1 "$dir/logs/look.log" | cut -d' ' -f1)
echo "RunPodSandbox to first output: $((($(date -d "$first" +%s%N) - started) / 1000000)) ms (three crictl processes included)"
echo "The idle pod's sentry and gofers (private is what the pod adds to the machine):"
after=$(python3 "$root/e2e/lib/host.py" pids moat-sentry moat-gofer)
mapfile -t own < <(comm -13 <(tr ' ' '\n' <<<"$before" | sort) <(tr ' ' '\n' <<<"$after" | sort))
python3 "$root/e2e/lib/host.py" memory "${own[@]}" | sed 's/^/  /'

if [ -n "$keep" ]; then
    trap - EXIT INT TERM
    say "moatd keeps running (pid $moatd_pid), and the pod in it. To look around:"
    echo "  alias crictl='$crictl --config $dir/crictl.yaml'"
    echo "  crictl ps; crictl exec --sync $web /bin/ps; crictl logs $look"
    echo "To end it:"
    echo "  $crictl --config $dir/crictl.yaml rmp -fa; kill $moatd_pid; rm -rf $dir"
    exit 0
fi

say "taking it down"
client stopp "$pod" >/dev/null
client rmp "$pod" >/dev/null
pod=
kill "$moatd_pid"
wait "$moatd_pid" || die "moatd ended with status $?"
moatd_pid=
left=$(comm -13 <(tr ' ' '\n' <<<"$before" | sort) <(python3 "$root/e2e/lib/host.py" pids moat-sentry moat-gofer | tr ' ' '\n' | sort) | tr '\n' ' ')
[ -z "${left// /}" ] || die "processes left behind: $left"
if grep -q "$dir" /proc/mounts; then
    die "mounts left behind: $(grep "$dir" /proc/mounts)"
fi
echo "nothing left behind"
