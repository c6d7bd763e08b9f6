package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// Environment that run.py gives.
var (
	scratchDir   = os.Getenv("MOAT_E2E_SCRATCH") // short: unix socket paths are
	buildDir     = os.Getenv("MOAT_BUILD")
	rootDir      = os.Getenv("MOAT_ROOT")
	cgroupName   = os.Getenv("MOAT_E2E_INSIDE")
	registryBin  = os.Getenv("MOAT_REGISTRY")
	referenceDir = os.Getenv("MOAT_REFERENCE") // containerd's programs: the tests run against it instead
)

func isReference() bool { return referenceDir != "" }

func moatOnly(t *testing.T, why string) {
	t.Helper()
	if isReference() {
		t.Skip("reference: " + why)
	}
}

// defaultHandler is what the pods of the daemons that are started from now on run by. Tests run one after the other.
var defaultHandler = "moat"

// eachHandler runs a test on a daemon whose pods are sandboxed and on one whose pods are native.
func eachHandler(t *testing.T, test func(t *testing.T)) {
	if isReference() {
		test(t)
		return
	}
	defer func() { defaultHandler = "moat" }()
	for _, handler := range []string{"moat", "native"} {
		defaultHandler = handler
		t.Run(handler, test)
	}
}

// Daemon is a moatd with a state of its own. It is stopped, and what it leaves behind is counted, when the test ends.
type Daemon struct {
	t       *testing.T
	dir     string
	socket  string
	command *exec.Cmd
	log     *os.File
	runtime internalapi.RuntimeService
	images  internalapi.ImageManagerService
	before  snapshot
	extra   []string // more options of moatd
}

func startDaemon(t *testing.T) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	return startDaemonIn(t, dir)
}

// startDaemonIn runs a daemon whose files are all below dir, which it may find filled already.
func startDaemonIn(t *testing.T, dir string, extra ...string) *Daemon {
	t.Helper()
	d := &Daemon{t: t, dir: dir, socket: filepath.Join(dir, "s"), before: takeSnapshot(), extra: extra}
	t.Cleanup(d.finish)
	d.start()
	return d
}

func (d *Daemon) arguments() []string {
	if isReference() {
		return []string{filepath.Join(referenceDir, "containerd"), "-c", d.referenceConfig()}
	}
	return append([]string{filepath.Join(buildDir, "moatd"), "--socket", "unix://" + d.socket,
		"--root", filepath.Join(d.dir, "lib"), "--state", filepath.Join(d.dir, "run"),
		"--cni-conf-dir", filepath.Join(d.dir, "net.d"), "--registry-config-dir", filepath.Join(d.dir, "certs.d"),
		"--cdi-spec-dir", filepath.Join(d.dir, "cdi"),
		"--default-handler", defaultHandler}, d.extra...)
}

func (d *Daemon) start() {
	d.t.Helper()
	d.launch()
	d.connect()
}

func (d *Daemon) launch() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(d.t, err)
	d.log = log
	arguments := d.arguments()
	d.command = exec.Command(arguments[0], arguments[1:]...)
	d.command.Stdout, d.command.Stderr = log, log
	d.command.Env = append(os.Environ(), "PATH="+referenceDir+":"+os.Getenv("PATH"))
	d.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(d.t, d.command.Start())
}

// tryConnect returns an error while the daemon does not answer.
func (d *Daemon) tryConnect() error {
	if _, err := os.Stat(d.socket); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	runtime, err := criclient.NewRemoteRuntimeService(ctx, "unix://"+d.socket, 20*time.Second, nil, false)
	if err != nil {
		return err
	}
	images, err := criclient.NewRemoteImageService(ctx, "unix://"+d.socket, 60*time.Second, nil, false)
	if err != nil {
		runtime.Close(ctx)
		return err
	}
	d.runtime, d.images = runtime, images
	return nil
}

// connect waits until the daemon answers and says that it is ready.
func (d *Daemon) connect() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	waitFor(d.t, 30*time.Second, func() bool {
		if _, err = os.Stat(d.socket); err != nil {
			return false
		}
		d.runtime, err = criclient.NewRemoteRuntimeService(ctx, "unix://"+d.socket, 5*time.Second, nil, false)
		return err == nil
	}, func() string { return fmt.Sprintf("the daemon answers: %v; its log:\n%s", err, d.lastLog()) })
	d.images, err = criclient.NewRemoteImageService(ctx, "unix://"+d.socket, 60*time.Second, nil, false)
	must(d.t, err)
	waitFor(d.t, 20*time.Second, func() bool {
		status, statusErr := d.runtime.Status(ctx, false)
		if statusErr != nil {
			err = statusErr
			return false
		}
		for _, condition := range status.Status.Conditions {
			// Others are remarks: containerd's of deprecated things, for one.
			needed := condition.Type == runtimeapi.RuntimeReady || condition.Type == runtimeapi.NetworkReady
			if needed && !condition.Status {
				err = errors.New(condition.String())
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprintf("the daemon is ready: %v", err) })
}

func (d *Daemon) pid() int { return d.command.Process.Pid }

// kill ends the daemon as kill -9 does: it has no time to write anything.
func (d *Daemon) kill() {
	d.t.Helper()
	must(d.t, d.command.Process.Signal(syscall.SIGKILL))
	d.command.Wait()
	d.disconnect()
}

// stop ends the daemon politely, and fails the test when it does not go.
func (d *Daemon) stop() {
	d.t.Helper()
	must(d.t, d.command.Process.Signal(syscall.SIGTERM))
	done := make(chan error, 1)
	go func() { done <- d.command.Wait() }()
	select {
	case err := <-done:
		if err != nil && !isReference() {
			d.t.Errorf("the daemon ended with %v on SIGTERM", err)
		}
	case <-time.After(20 * time.Second):
		d.command.Process.Kill()
		<-done
		d.t.Errorf("the daemon did not end on SIGTERM; its log:\n%s", d.lastLog())
	}
	d.disconnect()
}

func (d *Daemon) disconnect() {
	ctx := context.Background()
	d.runtime.Close(ctx)
	d.images.Close(ctx)
	d.log.Close()
	d.command = nil
}

// finish removes every pod, stops the daemon and counts what is left of it all.
func (d *Daemon) finish() {
	ctx := context.Background()
	if d.t.Failed() {
		d.t.Logf("the daemon's log ends:\n%s", d.lastLog())
	}
	if d.command == nil {
		d.start()
	}
	if d.runtime != nil {
		pods, err := d.runtime.ListPodSandbox(ctx, nil)
		if err != nil {
			d.t.Errorf("ListPodSandbox at the end: %v", err)
		}
		for _, pod := range pods {
			if err := d.runtime.StopPodSandbox(ctx, pod.Id); err != nil {
				d.t.Errorf("StopPodSandbox at the end: %v", err)
			}
			if err := d.runtime.RemovePodSandbox(ctx, pod.Id); err != nil {
				d.t.Errorf("RemovePodSandbox at the end: %v", err)
			}
		}
		d.stop()
	} else if d.command.Process != nil {
		d.command.Process.Kill()
		d.command.Wait()
	}
	var leaks []string
	deadline := time.Now().Add(10 * time.Second)
	for {
		leaks = takeSnapshot().moreThan(d.before)
		if len(leaks) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !isReference() {
		for _, leak := range leaks {
			d.t.Error(leak)
		}
	}
	cleanUp(d.before)
	os.RemoveAll(d.dir)
}

func (d *Daemon) lastLog() string {
	data, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-25):], "\n    ")
}

func (d *Daemon) descriptors() map[string]int {
	found := map[string]int{}
	dir := fmt.Sprintf("/proc/%d/fd", d.pid())
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err == nil {
			found[strings.TrimRight(target, "0123456789]")]++
		}
	}
	return found
}

// referenceConfig writes what makes containerd behave on this machine.
func (d *Daemon) referenceConfig() string {
	plugins := "/usr/lib/cni"
	conf := filepath.Join(d.dir, "net.d")
	must(d.t, os.MkdirAll(conf, 0o755))
	must(d.t, os.WriteFile(filepath.Join(conf, "10-net.conflist"), []byte(`{"cniVersion":"0.4.0","name":"n","plugins":[
{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","dataDir":"`+d.dir+`/ipam","ranges":[[{"subnet":"10.88.0.0/16"}]]}}]}`), 0o644))
	config := filepath.Join(d.dir, "config.toml")
	must(d.t, os.WriteFile(config, []byte(fmt.Sprintf(`version = 2
root = "%[1]s/lib"
state = "%[1]s/run"
[grpc]
  address = "%[1]s/s"
[ttrpc]
  address = "%[1]s/t"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s/test/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[2]s"
    conf_dir = "%[1]s/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`, d.dir, plugins, registryAddress)), 0o644))
	return config
}

// ---------------------------------------------------------------- small helpers

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, limit time.Duration, condition func() bool, what func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func mkimage(t *testing.T, arguments ...string) string {
	t.Helper()
	command := exec.Command(filepath.Join(rootDir, "e2e/images/mkimage.py"), arguments...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("mkimage %v: %v: %s", arguments, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func pidsOf(name string) map[int]bool {
	found := map[int]bool{}
	for _, pid := range processes() {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) == name {
			found[pid] = true
		}
	}
	return found
}

func killPid(pid int) { syscall.Kill(pid, syscall.SIGKILL) }

func removeLink(t *testing.T, name string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "delete", name).CombinedOutput(); err != nil {
		t.Errorf("ip link delete %s: %v: %s", name, err, out)
	}
}
