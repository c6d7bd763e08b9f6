package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// get asks the daemon's metrics server, whose port is in the log.
func (d *Daemon) get(path string) (int, string) {
	d.t.Helper()
	found := regexp.MustCompile(`metrics are at (http://127\.0\.0\.1:\d+)/metrics`).FindAllStringSubmatch(d.logText(), -1)
	if found == nil {
		d.t.Fatalf("no metrics server in the log:\n%s", d.lastLog())
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(found[len(found)-1][1] + path)
	must(d.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(d.t, err)
	return answer.StatusCode, string(body)
}

// Every family that moatd declares is moved by this run: one that is not counts nothing, or nobody knows what.
func TestEveryMetricMoves(t *testing.T) {
	moatOnly(t, "it has others")
	dir, err := os.MkdirTemp(scratchDir, "m")
	must(t, err)
	bin := filepath.Join(dir, "bin")
	must(t, os.MkdirAll(filepath.Join(dir, "net.d"), 0o755))
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10.conflist"), []byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"refuses"}]}`), 0o644))
	must(t, os.WriteFile(filepath.Join(bin, "refuses"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	d := startDaemonIn(t, dir, "--metrics-address", "127.0.0.1:0", "--cni-bin-dir", bin)
	must(t, os.Rename(filepath.Join(dir, "net.d"), filepath.Join(dir, "later")))
	old := newPod(d)
	d.kill()
	d.start() // a start that finds something; all that follows counts in its process
	must(t, os.Rename(filepath.Join(dir, "later"), filepath.Join(dir, "net.d")))
	if _, err := d.runtime.RunPodSandbox(ctx, podConfig(d), ""); err == nil {
		t.Error("a plugin that refuses made a network")
	}
	must(t, os.WriteFile(filepath.Join(bin, "refuses"), []byte("#!/bin/sh\nexit 0\n"), 0o755))
	must(t, os.Remove(filepath.Join(dir, "net.d", "10.conflist")))
	must(t, d.runtime.StopPodSandbox(ctx, old.id))
	must(t, d.runtime.RemovePodSandbox(ctx, old.id))
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage})) // so that the next pull moves bytes
	p := newPod(d)
	id, log := p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	must(t, d.command.Process.Signal(syscall.SIGHUP))
	d.logged("configuration reloaded", 0)
	// The shell has no way to what a sandbox does not do: this program has.
	self, err := os.Executable()
	must(t, err)
	_, out := p.run("exec /guest", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{HostPath: self, ContainerPath: "/guest", Readonly: true}}
		c.Envs = []*runtimeapi.KeyValue{{Key: "MOAT_E2E_GUEST", Value: []byte("odd")}}
	})
	if !strings.Contains(out, "asked") {
		t.Fatalf("the guest: %q", out)
	}
	go d.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "touch /running; sleep 1000"}, 0) // a call that is being served
	waitFor(t, 20*time.Second, func() bool {
		_, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/ls", "/running"}, 0)
		return err == nil
	}, func() string { return "the call is there" })
	status, text := d.get("/metrics")
	equal(t, status, 200, "status")
	moved, families := map[string]bool{}, map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			families[strings.Fields(name)[0]] = true
		} else if fields := strings.Fields(line); len(fields) == 2 && fields[1] != "0" && !strings.HasPrefix(line, "#") {
			name, _, _ := strings.Cut(fields[0], "{")
			moved[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")] = true
		}
	}
	if len(families) < 15 {
		t.Errorf("only %d families:\n%s", len(families), text)
	}
	for family := range families {
		if !moved[family] {
			t.Errorf("%s never moved", family)
		}
	}
	for _, want := range []string{`moat_objects{handler="moat",kind="containers",state="running"} 1`, `moat_sandbox_start_phase_seconds_count{phase="first_container"} 1`, `moat_sandbox_start_phase_seconds_count{phase="network"} 1`,
		`moat_sandbox_start_phase_seconds_count{phase="sentry"} 1`, `moat_sandbox_start_phase_seconds_count{phase="cgroup"} 1`,
		`moat_rpc_results_total{code="OK",method="PullImage"}`, `moat_recovered_total{what="pod_found_again"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("not in the metrics: %s\n%s", want, text)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		status, text := d.get(path)
		equal(t, fmt.Sprint(status, text), "200ok\n", path)
	}
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10.conflist"), []byte(`{`), 0o644))
	if status, text := d.get("/readyz"); status != 503 || !strings.Contains(text, "10.conflist") {
		t.Errorf("/readyz with a broken network: %d %s", status, text)
	}
	must(t, os.Remove(filepath.Join(dir, "net.d", "10.conflist")))
	must(t, d.runtime.StopContainer(ctx, id, 0))
}

func init() {
	if os.Getenv("MOAT_E2E_GUEST") == "odd" {
		syscall.Syscall(syscall.SYS_KEYCTL, 0, 0, 0)
		syscall.Syscall(syscall.SYS_PERF_EVENT_OPEN, 0, 0, 0)
		fd, _ := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), 10 /* F_SETSIG */, 5)
		fmt.Println("asked")
		os.Exit(0)
	}
}

func TestLogLinesCarryFields(t *testing.T) {
	moatOnly(t, "it logs in its own way")
	dir, err := os.MkdirTemp(scratchDir, "l")
	must(t, err)
	d := startDaemonIn(t, dir, "--log-json")
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	must(t, d.runtime.StopContainer(ctx, id, 0))
	d.logged("container exited", 0) // by the thread that listens to the sandbox, not by the call
	d.logged("\"rpc\":\"StopContainer\"", 0)
	seen := map[string]map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(d.logText()), "\n") {
		var fields map[string]string
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("not a JSON object of strings: %s: %v", line, err)
		}
		if fields["msg"] == "rpc" {
			seen[fields["rpc"]] = fields
			if !regexp.MustCompile(`^[0-9a-f]{8}-\d+$`).MatchString(fields["request"]) {
				t.Errorf("request id: %v", fields)
			}
		} else {
			seen[fields["msg"]] = fields
		}
	}
	for name, want := range map[string]map[string]string{
		"pod ready":         {"pod": p.id, "rpc": "RunPodSandbox", "level": "info"},
		"container started": {"pod": p.id, "container": id, "rpc": "StartContainer"},
		"container exited":  {"pod": p.id, "container": id, "code": "137"},
		"StopContainer":     {"container": id, "code": "OK", "level": "info"},
		"RunPodSandbox":     {"code": "OK"},
	} {
		for key, value := range want {
			if seen[name][key] != value {
				t.Errorf("%s: %s is %q, wanted %q: %v", name, key, seen[name][key], value, seen[name])
			}
		}
	}
	if _, there := seen["ListContainers"]; there {
		t.Error("a reading call is logged at info")
	}
}

func TestAServiceManagerIsToldHowItGoes(t *testing.T) {
	moatOnly(t, "it has libsystemd for that")
	dir, err := os.MkdirTemp(scratchDir, "y")
	must(t, err)
	address := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	must(t, err)
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", address.Name)
	t.Setenv("WATCHDOG_USEC", "400000")
	messages := make(chan string, 1000)
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := socket.Read(buffer)
			if err != nil {
				close(messages)
				return
			}
			messages <- string(buffer[:n])
		}
	}()
	told := func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case message := <-messages:
				if strings.Contains(message, want) {
					return
				}
			case <-deadline:
				t.Fatalf("not told within 20 s: %s", want)
			}
		}
	}
	d := startDaemonIn(t, dir)
	told("READY=1")
	told("WATCHDOG=1")
	told("WATCHDOG=1")
	must(t, d.command.Process.Signal(syscall.SIGHUP))
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1")
	d.stop()
	told("STOPPING=1")
	os.Unsetenv("NOTIFY_SOCKET")
	os.Unsetenv("WATCHDOG_USEC")
	d.start()
}

func TestAStopWaitsForCallsAndASecondOneDoesNot(t *testing.T) {
	moatOnly(t, "it cuts them short")
	dir, err := os.MkdirTemp(scratchDir, "g")
	must(t, err)
	d := startDaemonIn(t, dir, "--shutdown-grace", "60")
	p := newPod(d)
	id, log := p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	exec := func(script string) chan error {
		done := make(chan error, 1)
		go func() {
			out, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", script}, 0)
			if err == nil && string(out) != "whole\n" {
				err = fmt.Errorf("output %q", out)
			}
			done <- err
		}()
		return done
	}
	running := func(file string) {
		waitFor(t, 20*time.Second, func() bool {
			_, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/ls", file}, 0)
			return err == nil
		}, func() string { return file + " is there" })
	}
	call := exec("touch /one; while [ ! -e /go ]; do usleep 10000; done; echo whole")
	running("/one")
	must(t, d.command.Process.Signal(syscall.SIGTERM))
	d.logged("moatd ends", 0)
	// No new calls, while the old one goes on.
	waitFor(t, 20*time.Second, func() bool {
		_, err := d.runtime.Version(ctx, "v1")
		return err != nil
	}, func() string { return "new calls are refused" })
	if syscall.Kill(d.pid(), 0) != nil {
		t.Fatal("it ended before its call")
	}
	select {
	case err := <-call:
		t.Fatalf("the call ended: %v", err)
	default:
	}
	// A second signal ends it at once; the pod does not notice.
	must(t, d.command.Process.Signal(syscall.SIGTERM))
	must(t, d.command.Wait())
	if err := <-call; err == nil {
		t.Error("the call has a result, from nobody")
	}
	d.disconnect()
	d.start()
	equal(t, d.status(id).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the container")

	call = exec("touch /two; n=0; while [ $n -lt 100 ]; do n=$((n + 1)); usleep 10000; done; echo whole")
	running("/two")
	d.stop()
	if err := <-call; err != nil {
		t.Errorf("a call in progress at a polite stop: %v", err)
	}
	d.start()
}

func TestACancelledClientLeavesNoHalfPod(t *testing.T) {
	moatOnly(t, "it keeps such pods")
	d := startDaemon(t)
	pull(d, busyboxImage)
	for _, limit := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, limit)
		_, err := d.runtime.RunPodSandbox(short, podConfig(d), "")
		cancel()
		if err == nil {
			continue
		}
		waitFor(t, 20*time.Second, func() bool {
			pods, err := d.runtime.ListPodSandbox(ctx, nil)
			must(t, err)
			for _, pod := range pods {
				d.runtime.PodSandboxStatus(ctx, pod.Id, false)
			}
			left, _ := os.ReadDir(filepath.Join(d.dir, "lib/pods"))
			ready := 0
			for _, pod := range pods {
				if pod.State == runtimeapi.PodSandboxState_SANDBOX_READY {
					ready++
				}
			}
			return len(left) == ready
		}, func() string { return "what nobody waited for goes" })
	}
}

func TestStraysOfALostDatabaseGo(t *testing.T) {
	moatOnly(t, "its state is its own")
	d := startDaemon(t)
	p := newPod(d)
	_, log := p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	d.kill()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(filepath.Join(d.dir, "lib/moatd.db"+suffix))
	}
	foreign := filepath.Join(d.dir, "lib/pods/of-somebody-else")
	must(t, os.Mkdir(foreign, 0o755))
	d.start()
	d.logged("stray removed", 3) // sandbox, namespace, files, bundle
	for _, kind := range []string{"lib/containers", "run/moatd/netns"} {
		left, _ := os.ReadDir(filepath.Join(d.dir, kind))
		equal(t, len(left), 0, "left in "+kind)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("what is not ours is gone: %v", err)
	}
	must(t, os.Remove(foreign))
}

// frame is an HTTP/2 frame.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}, payload...)
}

func TestBrokenFramesHurtNobodyElse(t *testing.T) {
	moatOnly(t, "it is Go's own server")
	d := startDaemon(t)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := frame(4, 0, 0, nil)
	// :method POST, :scheme http, :path /runtime.v1.RuntimeService/Version, content-type application/grpc, te trailers
	literal := func(name, value string) []byte {
		return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
	}
	headers := append([]byte{0x83, 0x86}, literal(":path", "/runtime.v1.RuntimeService/Version")...)
	headers = append(append(append(headers, literal(":authority", "x")...), literal("content-type", "application/grpc")...), literal("te", "trailers")...)
	call := func(body []byte) []byte {
		return bytes.Join([][]byte{[]byte(preface), settings, frame(1, 4, 1, headers), frame(0, 1, 1, body)}, nil)
	}
	cases := map[string][]byte{
		"nothing":                    nil,
		"noise":                      bytes.Repeat([]byte{0xff, 0x00, 0x13}, 100000),
		"HTTP/1.1":                   []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"half a preface":             []byte(preface[:10]),
		"a frame of 16 MiB":          append([]byte(preface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		"settings on a stream":       append([]byte(preface), frame(4, 0, 7, nil)...),
		"data on no stream":          bytes.Join([][]byte{[]byte(preface), settings, frame(0, 0, 9, []byte("x"))}, nil),
		"a window of nothing":        bytes.Join([][]byte{[]byte(preface), settings, frame(8, 0, 0, []byte{0, 0, 0, 0})}, nil),
		"headers that are not HPACK": bytes.Join([][]byte{[]byte(preface), settings, frame(1, 4, 1, bytes.Repeat([]byte{0xff}, 500))}, nil),
		"headers without an end":     bytes.Join([][]byte{[]byte(preface), settings, frame(1, 0, 1, headers), bytes.Repeat(frame(9, 0, 1, bytes.Repeat([]byte{0x40}, 1000)), 200)}, nil),
		"a message of 4 GiB":         call([]byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}),
		"a message of 17 MiB":        call([]byte{0, 0x01, 0x10, 0, 0, 1, 2, 3}),
		"not a protobuf":             call([]byte{0, 0, 0, 0, 3, 0xff, 0xff, 0xff}),
		"compressed by nobody":       call([]byte{1, 0, 0, 0, 1, 0}),
		"a thousand resets": bytes.Join([][]byte{[]byte(preface), settings, func() []byte {
			var all []byte
			for stream := uint32(1); stream < 2000; stream += 2 {
				all = append(append(all, frame(1, 4, stream, headers)...), frame(3, 0, stream, []byte{0, 0, 0, 8})...)
			}
			return all
		}()}, nil),
	}
	for name, sent := range cases {
		connection, err := net.Dial("unix", d.socket)
		must(t, err)
		connection.SetDeadline(time.Now().Add(2 * time.Second))
		connection.Write(sent)
		connection.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, connection)
		connection.Close()
		if _, err := d.runtime.Version(ctx, "v1"); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
	big := podConfig(d)
	big.Annotations["a"] = strings.Repeat("x", 17<<20)
	if _, err := d.runtime.RunPodSandbox(ctx, big, ""); err == nil {
		t.Error("a request of 17 MiB was taken")
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid())); err == nil {
		if match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); len(match) == 2 && len(match[1]) > 6 {
			t.Errorf("resident memory of %s kB", match[1])
		}
	}
}

func TestInstalledIntoADirectory(t *testing.T) {
	moatOnly(t, "it is not ours to install")
	dest := t.TempDir()
	command := exec.Command("cmake", "--install", buildDir, "--prefix", "/usr/local")
	command.Env = append(os.Environ(), "DESTDIR="+dest)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []string{"bin/moat", "lib/moat/moatd", "lib/moat/moat-sentry", "lib/moat/moat-gofer", "lib/systemd/system/moatd.service",
		"share/moat/moatd.toml", "share/moat/crictl.yaml", "share/moat/runtimeclass.yaml"} {
		if _, err := os.Stat(filepath.Join(dest, "usr/local", file)); err != nil {
			t.Error(err)
		}
	}
	unit, err := os.ReadFile(filepath.Join(dest, "usr/local/lib/systemd/system/moatd.service"))
	must(t, err)
	if !strings.Contains(string(unit), "ExecStart=/usr/local/lib/moat/moatd\n") {
		t.Errorf("the unit starts something else:\n%s", unit)
	}
	if out, err := exec.Command(filepath.Join(dest, "usr/local/lib/moat/moatd"), "config", "check", "--config", filepath.Join(dest, "usr/local/share/moat/moatd.toml")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	old := buildDir
	buildDir = filepath.Join(dest, "usr/local/lib/moat")
	defer func() { buildDir = old }()
	d := startDaemon(t)
	_, out := newPod(d).run("echo installed")
	equal(t, out, "installed\n", "output")
}
