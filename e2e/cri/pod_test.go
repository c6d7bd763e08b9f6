package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

var ctx = context.Background()

// Pod is a sandbox that a test has made.
type Pod struct {
	*Daemon
	id     string
	config *runtimeapi.PodSandboxConfig
	count  int
}

var podCount int

func podConfig(d *Daemon) *runtimeapi.PodSandboxConfig {
	podCount++
	logs := filepath.Join(d.dir, fmt.Sprintf("logs%d", podCount))
	must(d.t, os.Mkdir(logs, 0o755))
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("pod%d", podCount), Namespace: "default", Uid: fmt.Sprintf("uid%d", podCount), Attempt: 1},
		Hostname:     "podhost",
		LogDirectory: logs,
		Labels:       map[string]string{"app": "test"},
		Annotations:  map[string]string{"note": "kept as it is"},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/" + cgroupName},
	}
}

// newPod pulls the image and runs a pod.
func newPod(d *Daemon, change ...func(*runtimeapi.PodSandboxConfig)) *Pod {
	d.t.Helper()
	pull(d, busyboxImage)
	config := podConfig(d)
	for _, f := range change {
		f(config)
	}
	id, err := d.runtime.RunPodSandbox(ctx, config, "")
	must(d.t, err)
	return &Pod{Daemon: d, id: id, config: config}
}

func pull(d *Daemon, reference string) string {
	d.t.Helper()
	found, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil)
	must(d.t, err)
	return found
}

func (p *Pod) containerConfig(script string) *runtimeapi.ContainerConfig {
	p.count++
	name := fmt.Sprintf("c%d", p.count)
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: busyboxImage},
		Command:  []string{"/bin/sh", "-c", script},
		LogPath:  name + ".log",
		Labels:   map[string]string{"container": name},
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

// create makes a container that runs a shell script, start also starts it. Both return its id.
func (p *Pod) create(script string, change ...func(*runtimeapi.ContainerConfig)) (string, string) {
	p.t.Helper()
	config := p.containerConfig(script)
	for _, f := range change {
		f(config)
	}
	id, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
	must(p.t, err)
	return id, filepath.Join(p.config.LogDirectory, config.LogPath)
}

func (p *Pod) start(script string, change ...func(*runtimeapi.ContainerConfig)) (string, string) {
	p.t.Helper()
	id, log := p.create(script, change...)
	must(p.t, p.runtime.StartContainer(ctx, id))
	return id, log
}

// run starts a script, waits for its end, and returns its status and output.
func (p *Pod) run(script string, change ...func(*runtimeapi.ContainerConfig)) (*runtimeapi.ContainerStatus, string) {
	p.t.Helper()
	id, log := p.start(script, change...)
	end := p.exited(id)
	return end, stdoutOf(p.t, log)
}

func (d *Daemon) status(id string) *runtimeapi.ContainerStatus {
	d.t.Helper()
	answer, err := d.runtime.ContainerStatus(ctx, id, false)
	must(d.t, err)
	return answer.Status
}

// exited waits until a container has ended and returns its status.
func (d *Daemon) exited(id string) *runtimeapi.ContainerStatus {
	d.t.Helper()
	var last *runtimeapi.ContainerStatus
	waitFor(d.t, 30*time.Second, func() bool {
		last = d.status(id)
		return last.State == runtimeapi.ContainerState_CONTAINER_EXITED
	}, func() string { return fmt.Sprintf("the container ends: %v", last) })
	return last
}

var logLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([FP]) (.*)$`)

type line struct {
	at     time.Time
	stream string
	full   bool
	text   string
}

// readLog parses a CRI log; every line of it has to be well formed and no earlier than the one before.
func readLog(t *testing.T, path string) []line {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var lines []line
	text := string(data)
	if at := strings.LastIndexByte(text, '\n'); at >= 0 {
		text = text[:at+1] // the last one may be on its way
	} else {
		return nil
	}
	for _, raw := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		match := logLine.FindStringSubmatch(raw)
		if match == nil {
			t.Fatalf("not a CRI log line: %q", raw)
		}
		at, err := time.Parse(time.RFC3339Nano, match[1])
		must(t, err)
		if len(lines) > 0 && at.Before(lines[len(lines)-1].at) {
			t.Errorf("the log goes back in time at %q", raw)
		}
		lines = append(lines, line{at, match[2], match[3] == "F", match[4]})
	}
	return lines
}

// streamOf joins what was written to one stream.
func streamOf(t *testing.T, path, stream string) string {
	t.Helper()
	var text strings.Builder
	for _, l := range readLog(t, path) {
		if l.stream == stream {
			text.WriteString(l.text)
			if l.full {
				text.WriteByte('\n')
			}
		}
	}
	return text.String()
}

func stdoutOf(t *testing.T, path string) string { t.Helper(); return streamOf(t, path, "stdout") }

// waitForOutput waits until a container's stdout has `text` in it.
func waitForOutput(t *testing.T, path, text string) {
	t.Helper()
	has := func() bool {
		data, _ := os.ReadFile(path)
		return strings.Contains(string(data), text)
	}
	waitFor(t, 30*time.Second, has, func() string {
		data, _ := os.ReadFile(path)
		return fmt.Sprintf("%q in the log: %q", text, data)
	})
}

func equal[T comparable](t *testing.T, got, wanted T, what string) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s: got %v, wanted %v", what, got, wanted)
	}
}

func failsWith(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; wanted %v with %q", code, words)
		return
	}
	if status.Code(err) != code && !isReference() {
		t.Errorf("code %v, wanted %v: %v", status.Code(err), code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not name %q: %v", word, err)
		}
	}
}

// ---------------------------------------------------------------- tests

func TestVersionStatusAndConfig(t *testing.T) {
	d := startDaemon(t)
	version, err := d.runtime.Version(ctx, "")
	must(t, err)
	equal(t, version.RuntimeApiVersion, "v1", "api version")
	if !isReference() {
		equal(t, version.RuntimeName, "moat", "runtime name")
	}
	if version.RuntimeVersion == "" {
		t.Error("no runtime version")
	}
	status, err := d.runtime.Status(ctx, true)
	must(t, err)
	conditions := map[string]bool{}
	for _, condition := range status.Status.Conditions {
		conditions[condition.Type] = condition.Status
	}
	equal(t, conditions["RuntimeReady"], true, "RuntimeReady")
	equal(t, conditions["NetworkReady"], true, "NetworkReady")
	must(t, d.runtime.UpdateRuntimeConfig(ctx, &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.244.0.0/24"}}))
	if isReference() {
		return
	}
	config, err := d.runtime.RuntimeConfig(ctx)
	must(t, err)
	equal(t, config.Linux.CgroupDriver, runtimeapi.CgroupDriver_CGROUPFS, "cgroup driver")
}

func TestPodOfTwoContainers(t *testing.T) { eachHandler(t, testPodOfTwoContainers) }

func testPodOfTwoContainers(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	volume := filepath.Join(d.dir, "volume")
	must(t, os.Mkdir(volume, 0o777))
	shared := func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/shared", HostPath: volume}}
	}
	server, _ := p.start("mkdir /www; echo page > /www/index.html; echo note > /shared/.n; mv /shared/.n /shared/note; exec httpd -f -p 127.0.0.1:8080 -h /www", shared)
	client, log := p.start("while [ ! -e /shared/note ]; do usleep 1000; done; cat /shared/note; hostname; "+
		"until wget -q -O - http://127.0.0.1:8080/ 2>/dev/null; do usleep 10000; done; ls /www 2>&1 | grep -c 'No such'", shared)
	end := p.exited(client)
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, stdoutOf(t, log), "note\npodhost\npage\n1\n", "output")
	equal(t, p.status(server).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the server's state")

	state, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
	must(t, err)
	equal(t, state.Status.State, runtimeapi.PodSandboxState_SANDBOX_READY, "pod state")
	equal(t, state.Status.Metadata.Name, p.config.Metadata.Name, "pod name")
	equal(t, state.Status.Annotations["note"], "kept as it is", "annotation")
	if state.Status.Network == nil || state.Status.Network.Ip == "" {
		t.Error("the pod has no address")
	}
	must(t, d.runtime.StopContainer(ctx, server, 0))
	must(t, d.runtime.RemoveContainer(ctx, server))
	must(t, d.runtime.RemoveContainer(ctx, client))
	must(t, d.runtime.StopPodSandbox(ctx, p.id))
	state, err = d.runtime.PodSandboxStatus(ctx, p.id, false)
	must(t, err)
	equal(t, state.Status.State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY, "pod state after stop")
	must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	_, err = d.runtime.PodSandboxStatus(ctx, p.id, false)
	failsWith(t, err, codes.NotFound)
}

func TestTheKernelIsMoats(t *testing.T) {
	moatOnly(t, "it runs on the host's kernel")
	p := newPod(startDaemon(t))
	_, out := p.run("cat /proc/version; uname -r; dmesg")
	host, _ := os.ReadFile("/proc/version")
	if !strings.Contains(out, "moat") || strings.Contains(out, strings.TrimSpace(string(host))) {
		t.Errorf("the guest sees %q", out)
	}
}

func TestLogs(t *testing.T) { eachHandler(t, testLogs) }

func testLogs(t *testing.T) {
	p := newPod(startDaemon(t))
	id, log := p.start("echo one; echo two >&2; printf 'a\\n\\nb\\n'; head -c 50000 /dev/zero | tr '\\0' x; echo; echo end")
	p.exited(id)
	equal(t, streamOf(t, log, "stderr"), "two\n", "stderr")
	equal(t, stdoutOf(t, log), "one\na\n\nb\n"+strings.Repeat("x", 50000)+"\nend\n", "stdout")
	for _, l := range readLog(t, log) {
		if len(l.text) > 16384 {
			t.Errorf("a log line of %d bytes: kubelet reads at most 16 KiB", len(l.text))
		}
	}
}

func TestReopenContainerLog(t *testing.T) { eachHandler(t, testReopenContainerLog) }

func testReopenContainerLog(t *testing.T) {
	p := newPod(startDaemon(t))
	id, log := p.start("i=0; while :; do echo $i; i=$((i + 1)); usleep 2000; done")
	waitForOutput(t, log, " 20\n")
	must(t, os.Rename(log, log+".1"))
	must(t, p.runtime.ReopenContainerLog(ctx, id))
	waitFor(t, 10*time.Second, func() bool { return strings.Count(stdoutOf(t, log), "\n") > 20 }, func() string { return "lines in the new log" })
	must(t, p.runtime.StopContainer(ctx, id, 0))
	both := strings.Fields(stdoutOf(t, log+".1") + stdoutOf(t, log))
	for i, word := range both {
		if word != fmt.Sprint(i) {
			t.Fatalf("line %d of both logs says %s", i, word)
		}
	}
	p.exited(id)
	if err := p.runtime.ReopenContainerLog(ctx, id); err == nil {
		t.Error("the log of an ended container was reopened")
	}
}

func TestExitCodes(t *testing.T) { eachHandler(t, testExitCodes) }

func testExitCodes(t *testing.T) {
	p := newPod(startDaemon(t))
	for script, wanted := range map[string]int32{"exit 0": 0, "exit 7": 7, "exit 255": 255, "sh -c 'kill -9 $$'; exit $?": 137} {
		began := time.Now()
		end, _ := p.run(script)
		equal(t, end.ExitCode, wanted, script)
		reason := "Completed"
		if wanted != 0 {
			reason = "Error"
		}
		equal(t, end.Reason, reason, script+": reason")
		created, started, finished := time.Unix(0, end.CreatedAt), time.Unix(0, end.StartedAt), time.Unix(0, end.FinishedAt)
		if created.Before(began.Add(-time.Second)) || started.Before(created) || finished.Before(started) || finished.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: created %v, started %v, finished %v", script, created, started, finished)
		}
	}
}

func TestExecSync(t *testing.T) { eachHandler(t, testExecSync) }

func testExecSync(t *testing.T) {
	p := newPod(startDaemon(t))
	// POD is the CRI's default: with it process 1 is the pod's own, where there is one.
	id, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}
	})
	stdout, stderr, err := p.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "echo out; echo err >&2; cat /proc/1/comm"}, 0)
	must(t, err)
	equal(t, string(stdout), "out\nsleep\n", "stdout")
	equal(t, string(stderr), "err\n", "stderr")
	_, _, err = p.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "exit 5"}, 0)
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 5 {
		t.Errorf("exit 5 came back as %v", err)
	}
	_, _, err = p.runtime.ExecSync(ctx, id, []string{"/bin/no-such-program"}, 0)
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	big, _, err := p.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "head -c 1000000 /dev/zero"}, 0)
	must(t, err)
	equal(t, len(big), 1000000, "bytes of a megabyte")
	began := time.Now()
	_, _, err = p.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "sleep 1001"}, time.Second)
	if err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("a timeout of a second: %v after %v", err, time.Since(began))
	}
	waitFor(t, 10*time.Second, func() bool {
		table, _, err := p.runtime.ExecSync(ctx, id, []string{"/bin/ps"}, 0)
		return err == nil && !strings.Contains(string(table), "1001")
	}, func() string { return "what timed out is killed" })
	_, _, err = p.runtime.ExecSync(ctx, "no-such-container", []string{"/bin/true"}, 0)
	failsWith(t, err, codes.NotFound, "no-such-container")
}

func TestStopWithGrace(t *testing.T) { eachHandler(t, testStopWithGrace) }

func testStopWithGrace(t *testing.T) {
	p := newPod(startDaemon(t))
	id, log := p.start("trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 1 & wait; done")
	waitForOutput(t, log, "ready")
	began := time.Now()
	must(t, p.runtime.StopContainer(ctx, id, 30))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stop took %v though the guest went at once", took)
	}
	end := p.status(id)
	equal(t, end.State, runtimeapi.ContainerState_CONTAINER_EXITED, "state")
	equal(t, end.ExitCode, 3, "exit code of the handler")
	equal(t, stdoutOf(t, log), "ready\nstopping\n", "output")

	id, log = p.start("trap 'echo ignored' TERM; echo ready; while :; do sleep 1 & wait; done")
	waitForOutput(t, log, "ready")
	began = time.Now()
	must(t, p.runtime.StopContainer(ctx, id, 1))
	if took := time.Since(began); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("stop with a second of grace took %v", took)
	}
	equal(t, p.status(id).ExitCode, 137, "exit code after SIGKILL")
	waitForOutput(t, log, "ignored")
}

// A container starts in milliseconds: its stop may come before its program has installed a handler.
func TestAStopBeforeTheHandlerIsThere(t *testing.T) {
	p := newPod(startDaemon(t))
	// As number 1, which a signal without a handler does not end.
	id, log := p.start("usleep 300000; trap 'echo heard; exit 5' TERM; while :; do usleep 10000; done", func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}
	})
	must(t, p.runtime.StopContainer(ctx, id, 60))
	equal(t, p.status(id).ExitCode, 5, "exit code")
	equal(t, stdoutOf(t, log), "heard\n", "output")
}

func TestStopPodEndsItsContainers(t *testing.T) { eachHandler(t, testStopPodEndsItsContainers) }

func testStopPodEndsItsContainers(t *testing.T) {
	p := newPod(startDaemon(t))
	one, _ := p.start("sleep 1000")
	two, _ := p.start("trap '' TERM; while :; do sleep 1; done")
	created, _ := p.create("sleep 1000")
	must(t, p.runtime.StopPodSandbox(ctx, p.id))
	for _, id := range []string{one, two} {
		equal(t, p.status(id).State, runtimeapi.ContainerState_CONTAINER_EXITED, "state")
	}
	if err := p.runtime.StartContainer(ctx, created); err == nil {
		t.Error("a container was started in a stopped pod")
	}
	must(t, p.runtime.RemovePodSandbox(ctx, p.id))
	left, err := p.runtime.ListContainers(ctx, nil)
	must(t, err)
	equal(t, len(left), 0, "containers of a removed pod")
}

func TestDoingThingsTwice(t *testing.T) { eachHandler(t, testDoingThingsTwice) }

func testDoingThingsTwice(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	if err := d.runtime.StartContainer(ctx, id); err == nil {
		t.Error("a running container was started")
	}
	for range 2 {
		must(t, d.runtime.StopContainer(ctx, id, 0))
	}
	for range 2 {
		must(t, d.runtime.RemoveContainer(ctx, id))
	}
	for range 2 {
		must(t, d.runtime.StopPodSandbox(ctx, p.id))
	}
	for range 2 {
		must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	}
	for range 2 {
		must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
	}
	if !isReference() {
		must(t, d.runtime.StopContainer(ctx, "no-such-container", 0))
		must(t, d.runtime.StopPodSandbox(ctx, "no-such-pod"))
	}
	must(t, d.runtime.RemoveContainer(ctx, "no-such-container"))
	must(t, d.runtime.RemovePodSandbox(ctx, "no-such-pod"))
}

func TestARunningContainerIsRemovedWithItsPod(t *testing.T) {
	eachHandler(t, testARunningContainerIsRemovedWithItsPod)
}

func testARunningContainerIsRemovedWithItsPod(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	p.start("sleep 1000")
	must(t, d.runtime.StopPodSandbox(ctx, p.id))
	must(t, d.runtime.RemovePodSandbox(ctx, p.id))
}

func TestUnknownThings(t *testing.T) {
	d := startDaemon(t)
	pull(d, busyboxImage)
	config := podConfig(d)
	_, err := d.runtime.RunPodSandbox(ctx, config, "no-such-handler")
	if err == nil || !strings.Contains(err.Error(), "no-such-handler") {
		t.Errorf("an unknown handler: %v", err)
	}
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	equal(t, len(pods), 0, "pods after a refused one")
	p := newPod(d)
	refused := p.containerConfig("true")
	refused.Image.Image = "no.such/image:1"
	_, err = d.runtime.CreateContainer(ctx, p.id, refused, p.config)
	if err == nil || !strings.Contains(err.Error(), "no.such/image") {
		t.Errorf("an image that is not there: %v", err)
	}
	_, err = d.runtime.CreateContainer(ctx, "no-such-pod", p.containerConfig("true"), p.config)
	failsWith(t, err, codes.NotFound, "no-such-pod")
	_, err = d.runtime.ContainerStatus(ctx, "no-such-container", false)
	failsWith(t, err, codes.NotFound, "no-such-container")
	failsWith(t, d.runtime.StartContainer(ctx, "no-such-container"), codes.NotFound, "no-such-container")
	missing := p.containerConfig("true")
	missing.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: filepath.Join(d.dir, "no-such-path")}}
	id, err := d.runtime.CreateContainer(ctx, p.id, missing, p.config)
	must(t, err)
	must(t, d.runtime.StartContainer(ctx, id)) // kubelet counts on it: what is not there is made a directory
	if info, err := os.Stat(missing.Mounts[0].HostPath); err != nil || !info.IsDir() {
		t.Errorf("a mount of nothing: %v", err)
	}
	absent := p.containerConfig("true")
	absent.Command = []string{"/bin/no-such-program"}
	id, err = d.runtime.CreateContainer(ctx, p.id, absent, p.config)
	if err == nil {
		err = d.runtime.StartContainer(ctx, id)
	}
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	// All that went wrong leaves the pod usable.
	end, out := p.run("echo fine")
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, "fine\n", "output")
}

func TestTheSamePodTwiceIsRefused(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	if id, err := d.runtime.RunPodSandbox(ctx, p.config, ""); err == nil && id != p.id {
		t.Errorf("two pods of one name: %s and %s", p.id, id)
	}
	config := p.containerConfig("sleep 1000")
	first, err := d.runtime.CreateContainer(ctx, p.id, config, p.config)
	must(t, err)
	if second, err := d.runtime.CreateContainer(ctx, p.id, config, p.config); err == nil && second != first {
		t.Errorf("two containers of one name: %s and %s", first, second)
	}
}

func TestLists(t *testing.T) {
	d := startDaemon(t)
	one, two := newPod(d), newPod(d, func(c *runtimeapi.PodSandboxConfig) { c.Labels["app"] = "other" })
	running, _ := one.start("sleep 1000")
	created, _ := two.create("sleep 1000")
	pods := func(filter *runtimeapi.PodSandboxFilter) string {
		found, err := d.runtime.ListPodSandbox(ctx, filter)
		must(t, err)
		var ids []string
		for _, pod := range found {
			ids = append(ids, pod.Id)
		}
		return strings.Join(ids, " ")
	}
	equal(t, len(strings.Fields(pods(nil))), 2, "pods")
	equal(t, pods(&runtimeapi.PodSandboxFilter{Id: one.id}), one.id, "by id")
	equal(t, pods(&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "other"}}), two.id, "by label")
	must(t, d.runtime.StopPodSandbox(ctx, two.id))
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	equal(t, pods(&runtimeapi.PodSandboxFilter{State: ready}), one.id, "by state")
	containers := func(filter *runtimeapi.ContainerFilter) string {
		found, err := d.runtime.ListContainers(ctx, filter)
		must(t, err)
		var ids []string
		for _, container := range found {
			ids = append(ids, container.Id)
		}
		return strings.Join(ids, " ")
	}
	equal(t, len(strings.Fields(containers(nil))), 2, "containers")
	equal(t, containers(&runtimeapi.ContainerFilter{PodSandboxId: two.id}), created, "by pod")
	equal(t, containers(&runtimeapi.ContainerFilter{Id: running}), running, "by id")
	state := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	equal(t, containers(&runtimeapi.ContainerFilter{State: state}), running, "by state")
}

func TestContainerConfig(t *testing.T) { eachHandler(t, testContainerConfig) }

func testContainerConfig(t *testing.T) {
	p := newPod(startDaemon(t), func(c *runtimeapi.PodSandboxConfig) {
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"svc.test"}, Options: []string{"ndots:5"}}
	})
	volume := filepath.Join(p.dir, "ro")
	must(t, os.Mkdir(volume, 0o755))
	end, out := p.run(`echo "$0 $1 $PWD $FROM_CONFIG"; id -u; id -g; touch /x 2>/dev/null || echo root-refused; touch /ro/x 2>/dev/null || echo mount-refused; cat /etc/resolv.conf`,
		func(c *runtimeapi.ContainerConfig) {
			c.Args = []string{"zero", "o n e"}
			c.WorkingDir = "/usr"
			c.Envs = []*runtimeapi.KeyValue{{Key: "FROM_CONFIG", Value: []byte("yes")}}
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/ro", HostPath: volume, Readonly: true}}
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
				RunAsUser: &runtimeapi.Int64Value{Value: 33}, RunAsGroup: &runtimeapi.Int64Value{Value: 33}, ReadonlyRootfs: true,
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}
		})
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, "zero o n e /usr yes\n33\n33\nroot-refused\nmount-refused\nsearch svc.test\nnameserver 192.0.2.53\noptions ndots:5\n", "output")
}

func TestPodPidNamespace(t *testing.T) { eachHandler(t, testPodPidNamespace) }

func testPodPidNamespace(t *testing.T) {
	p := newPod(startDaemon(t), func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}}
	})
	share := func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}}
	}
	first, _ := p.start("exec sleep 4321", share)
	id, log := p.start("until ps | grep -v grep | grep 'sleep 4321'; do usleep 10000; done", share)
	p.exited(id)
	if !strings.Contains(stdoutOf(t, log), "sleep 4321") {
		t.Error("the neighbour's process is not seen")
	}
	// Number 1 is no container's: nobody inside can end it, and it collects what is left to it.
	end, out := p.run("kill -KILL 1; sh -c '(until [ -e /tmp/go ]; do usleep 10000; done) & echo $! > /tmp/orphan; exec true'; orphan=$(cat /tmp/orphan); "+
		"until grep '^PPid:.1$' /proc/$orphan/status; do usleep 10000; done; touch /tmp/go; until ! [ -e /proc/$orphan ]; do usleep 10000; done; "+
		"tr '\\0' '\\n' < /proc/1/cmdline | head -n 1", share)
	equal(t, end.ExitCode, 0, "exit code")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	equal(t, lines[0], "PPid:\t1", "the orphan's parent")
	if !strings.HasSuffix(lines[len(lines)-1], "pause") {
		t.Errorf("number 1 is %q", lines)
	}
	// Containers come and go beside it.
	must(t, p.runtime.StopContainer(ctx, first, 0))
	must(t, p.runtime.RemoveContainer(ctx, first))
	last, _ := p.start("exec sleep 1234", share)
	ps := p.exec(last, "ps")
	if strings.Contains(ps, "4321") || !strings.Contains(ps, "1234") || !strings.Contains(ps, "pause") {
		t.Errorf("the processes of the pod: %s", ps)
	}
}

func TestContainersShareIpc(t *testing.T) { eachHandler(t, testContainersShareIpc) }

func testContainersShareIpc(t *testing.T) {
	p := newPod(startDaemon(t))
	p.start("touch /dev/mqueue/queue; exec sleep 1000")
	id, log := p.start("until ls /dev/mqueue | grep queue; do usleep 10000; done")
	p.exited(id)
	equal(t, stdoutOf(t, log), "queue\n", "a message queue made by the neighbour")
	other := newPod(p.Daemon)
	_, out := other.run("ls /dev/mqueue; echo end")
	equal(t, out, "end\n", "another pod's message queues")
}

func TestLimitsAreInTheContainersOwnCgroup(t *testing.T) {
	eachHandler(t, testLimitsAreInTheContainersOwnCgroup)
}

func testLimitsAreInTheContainersOwnCgroup(t *testing.T) {
	p := newPod(startDaemon(t))
	id, log := p.start("echo ready; sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512}
	})
	waitForOutput(t, log, "ready")
	for suffix, wanted := range map[string]string{"memory/memory.limit_in_bytes": "67108864", "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.shares": "512"} {
		controller, file := filepath.Split(suffix)
		found := ""
		for _, group := range cgroupsBelow(cgroupName) {
			if strings.HasPrefix(group, "/sys/fs/cgroup/"+controller) && strings.Contains(filepath.Base(group), id) {
				data, _ := os.ReadFile(filepath.Join(group, file))
				found = strings.TrimSpace(string(data))
			}
		}
		equal(t, found, wanted, suffix+" of the container's group")
	}
}

func TestDescriptorsDoNotGrow(t *testing.T) { eachHandler(t, testDescriptorsDoNotGrow) }

func testDescriptorsDoNotGrow(t *testing.T) {
	moatOnly(t, "it keeps sockets to its shims for a while")
	d := startDaemon(t)
	pull(d, busyboxImage)
	cycle := func() {
		p := newPod(d)
		id, _ := p.start("echo x")
		p.exited(id)
		running, _ := p.start("sleep 1000")
		p.runtime.ExecSync(ctx, running, []string{"/bin/true"}, 0)
		must(t, d.runtime.StopPodSandbox(ctx, p.id))
		must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	}
	cycle() // what is opened once and kept
	before := d.descriptors()
	for range 5 {
		cycle()
	}
	var grown []string
	waitFor(t, 10*time.Second, func() bool {
		grown = nil
		for target, count := range d.descriptors() {
			if count > before[target]+2 { // connections come and go
				grown = append(grown, fmt.Sprintf("%s: %d, was %d", target, count, before[target]))
			}
		}
		return len(grown) == 0
	}, func() string { return fmt.Sprintf("descriptors after five pods: %v", grown) })
}

func TestTenPodsAtOnce(t *testing.T) { eachHandler(t, testTenPodsAtOnce) }

func testTenPodsAtOnce(t *testing.T) {
	d := startDaemon(t)
	pull(d, busyboxImage)
	var configs []*runtimeapi.PodSandboxConfig
	for range 10 {
		configs = append(configs, podConfig(d))
	}
	errs := make(chan error, len(configs))
	for number, config := range configs {
		go func() {
			errs <- func() error {
				id, err := d.runtime.RunPodSandbox(ctx, config, "")
				if err != nil {
					return err
				}
				container, err := d.runtime.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{
					Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: busyboxImage},
					Command: []string{"/bin/sh", "-c", fmt.Sprintf("echo %d; sleep 1000", number)}, LogPath: "c.log",
					Linux: &runtimeapi.LinuxContainerConfig{}}, config)
				if err != nil {
					return err
				}
				return d.runtime.StartContainer(ctx, container)
			}()
		}()
	}
	for range configs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	addresses := map[string]bool{}
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	for _, pod := range pods {
		state, err := d.runtime.PodSandboxStatus(ctx, pod.Id, false)
		must(t, err)
		addresses[state.Status.Network.GetIp()] = true
	}
	equal(t, len(addresses), 10, "different addresses")
	for number, config := range configs {
		waitForOutput(t, filepath.Join(config.LogDirectory, "c.log"), fmt.Sprintf(" %d\n", number))
	}
}

// A first process may end before those that it leaves behind: they are killed while the container is already forgotten.
func TestManyProcessesOfAStoppedContainer(t *testing.T) {
	eachHandler(t, testManyProcessesOfAStoppedContainer)
}

func testManyProcessesOfAStoppedContainer(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	stays, _ := p.start("for i in 1 2 3 4 5 6 7; do while :; do :; done & done; wait") // the machine is busy
	processes := func() uint64 {
		stats, err := d.runtime.PodSandboxStats(ctx, p.id)
		must(t, err)
		return stats.Linux.Process.ProcessCount.GetValue()
	}
	waitFor(t, 30*time.Second, func() bool { return processes() > 7 }, func() string { return "the neighbour works" })
	before := processes()
	for i := 0; i < 25; i++ {
		id, log := p.start("trap 'exit 0' TERM; for i in $(seq 40); do sleep 1000 & done; echo ready; wait")
		waitForOutput(t, log, "ready")
		must(t, d.runtime.StopContainer(ctx, id, 30))
		status, err := d.runtime.ContainerStatus(ctx, id, false)
		must(t, err)
		equal(t, status.Status.ExitCode, 0, "the first process ended by itself")
		must(t, d.runtime.RemoveContainer(ctx, id))
		status, err = d.runtime.ContainerStatus(ctx, stays, false)
		must(t, err)
		equal(t, status.Status.State, runtimeapi.ContainerState_CONTAINER_RUNNING, "its neighbour")
	}
	// Some that are kept ready may have been added; one a container would be 25.
	waitFor(t, 30*time.Second, func() bool { return processes() < before+12 }, func() string {
		return fmt.Sprintf("%d processes, %d before", processes(), before)
	})
}
