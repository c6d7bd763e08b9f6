package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// newPodBy is newPod with a handler's name.
func newPodBy(d *Daemon, handler string, change ...func(*runtimeapi.PodSandboxConfig)) *Pod {
	d.t.Helper()
	pull(d, busyboxImage)
	config := podConfig(d)
	for _, f := range change {
		f(config)
	}
	id, err := d.runtime.RunPodSandbox(ctx, config, handler)
	must(d.t, err)
	return &Pod{Daemon: d, id: id, config: config}
}

func TestBothHandlersOnOneNetwork(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	sandboxed, native := newPodBy(d, "moat"), newPodBy(d, "native")
	for _, p := range []*Pod{sandboxed, native} {
		_, log := p.start(webServer)
		waitForOutput(t, log, "up")
	}
	fetch := func(from, to *Pod) {
		t.Helper()
		_, out := from.run(fmt.Sprintf("n=0; until wget -q -O - http://%s:8080/; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; usleep 100000; done", to.address()))
		equal(t, out, "page\n", "from pod to pod")
	}
	fetch(sandboxed, native)
	fetch(native, sandboxed)
	_, node := native.run("uname -r")
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	equal(t, node, string(release), "a native pod's kernel is the node's")
	if _, own := sandboxed.run("uname -r"); own == node {
		t.Errorf("a sandboxed pod's kernel is the node's: %s", own)
	}
	for handler, p := range map[string]*Pod{"moat": sandboxed, "native": native} {
		state, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
		must(t, err)
		equal(t, state.Status.RuntimeHandler, handler, "handler in the status")
	}
	_, err = d.runtime.RunPodSandbox(ctx, podConfig(d), "kata")
	failsWith(t, err, codes.InvalidArgument, "runtime_handler", "native")
}

func TestAPrivilegedNativePodSeesTheNode(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	node := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
	p := newPodBy(d, "native", func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = ""
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: node, Privileged: true}
	})
	privileged := func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: node, Privileged: true}
	}
	_, out := p.run("for n in net pid ipc uts; do readlink /proc/self/ns/$n; done", privileged)
	wanted := ""
	for _, name := range []string{"net", "pid", "ipc", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		must(t, err)
		wanted += link + "\n"
	}
	equal(t, out, wanted, "namespaces")
	_, out = p.run(fmt.Sprintf("tr '\\0' ' ' < /proc/%d/cmdline", os.Getpid()), privileged)
	if !strings.Contains(out, "cri.test") {
		t.Errorf("the node's processes are not seen: %q", out)
	}
	_, out = p.run("test -c /dev/kmsg -o -c /dev/full && mkdir /m && mount -t tmpfs none /m && grep -c ' /m ' /proc/mounts", privileged)
	equal(t, out, "1\n", "a privileged container may mount")
	// Not privileged: its own view of the same.
	end, _ := p.run("mkdir /m && mount -t tmpfs none /m", func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: node}
	})
	if end.ExitCode == 0 {
		t.Error("an unprivileged container mounts")
	}
}

func TestNativeSeccompAndDevices(t *testing.T) {
	moatOnly(t, "the profile is ours")
	d := startDaemon(t)
	p := newPodBy(d, "native")
	filter := func(profile *runtimeapi.SecurityProfile) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Seccomp: profile}
		}
	}
	mode := "grep -w Seccomp: /proc/self/status | tr -d '\\t'"
	_, out := p.run(mode, filter(&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}))
	equal(t, out, "Seccomp:2\n", "RuntimeDefault")
	end, _ := p.run("unshare -U true", filter(&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}))
	if end.ExitCode == 0 {
		t.Error("RuntimeDefault lets unshare through")
	}
	_, out = p.run(mode, filter(&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}))
	equal(t, out, "Seccomp:0\n", "Unconfined")
	profile := filepath.Join(d.dir, "no-chmod.json")
	must(t, os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmod","fchmodat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o644))
	_, out = p.run("touch /x; chmod 700 /x || echo refused; mkdir /y && echo made", filter(&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}))
	equal(t, out, "refused\nmade\n", "a localhost profile")

	_, out = p.run("test -c /dev/loot && head -c 1 /dev/loot | wc -c; echo x > /dev/loot || echo read only", func(c *runtimeapi.ContainerConfig) {
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/loot", Permissions: "r"}}
	})
	if !strings.HasPrefix(out, "1\n") {
		t.Errorf("a device of the node: %q", out)
	}
}

func monitorsOf(t *testing.T, old map[int]bool) []int {
	t.Helper()
	var found []int
	for pid := range pidsOf("moat-monitor") {
		if !old[pid] {
			found = append(found, pid)
		}
	}
	return found
}

func TestAKilledMonitorIsNoticed(t *testing.T) {
	moatOnly(t, "no monitor of ours")
	d := startDaemon(t)
	p := newPodBy(d, "native")
	old := pidsOf("moat-monitor")
	id, log := p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	for _, pid := range monitorsOf(t, old) {
		killPid(pid)
	}
	equal(t, d.exited(id).ExitCode, 137, "exit code of a container whose monitor was killed")

	// The same while nobody looks.
	old = pidsOf("moat-monitor")
	id, log = p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	d.kill()
	for _, pid := range monitorsOf(t, old) {
		killPid(pid)
	}
	d.start()
	equal(t, d.exited(id).ExitCode, 137, "exit code after a restart")
	_, out := p.run("echo fine")
	equal(t, out, "fine\n", "the pod goes on")
}

func TestADeadPauseIsNoticed(t *testing.T) {
	moatOnly(t, "no pause process of ours")
	d := startDaemon(t)
	old := pidsOf("moat-pause")
	p := newPodBy(d, "native")
	for pid := range pidsOf("moat-pause") {
		if !old[pid] {
			killPid(pid)
		}
	}
	waitFor(t, 20*time.Second, func() bool {
		state, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
		must(t, err)
		return state.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}, func() string { return "the pod is not ready" })
}

func TestNativeOomIsTold(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	p := newPodBy(d, "native")
	end, _ := p.run("exec tail /dev/zero", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	})
	equal(t, end.Reason, "OOMKilled", "reason")
	equal(t, end.ExitCode, 137, "exit code")
}

func TestWithoutRuncNativePodsAreRefused(t *testing.T) {
	moatOnly(t, "its runtimes are configured otherwise")
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	d := startDaemonIn(t, dir, "--native-runtime", "/nowhere/runc")
	_, err = d.runtime.RunPodSandbox(ctx, podConfig(d), "native")
	failsWith(t, err, codes.FailedPrecondition, "native", "/nowhere/runc")
	status, err := d.runtime.Status(ctx, true)
	must(t, err)
	for _, handler := range status.RuntimeHandlers {
		if handler.Name == "native" {
			t.Error("Status offers the handler native")
		}
	}
	if !strings.Contains(status.Info["handlers"], "/nowhere/runc") {
		t.Errorf("Status does not say why: %s", status.Info["handlers"])
	}
}

func TestANativeTerminalOutlivesTheDaemon(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	p := newPodBy(d, "native")
	id, log := p.start("tty; until [ -e /go ]; do usleep 10000; done; echo late", func(c *runtimeapi.ContainerConfig) { c.Tty = true })
	waitForOutput(t, log, "/dev/")
	d.kill()
	d.start()
	_, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/touch", "/go"}, 0)
	must(t, err)
	equal(t, d.exited(id).ExitCode, 0, "exit code")
	if out := stdoutOf(t, log); !strings.Contains(out, "late") {
		t.Errorf("what the terminal showed after the restart is not in the log: %q", out)
	}
}

// Kubelet sends a limit of 0 for each size of huge pages, on machines without that controller too.
func TestLimitsOfHugePages(t *testing.T) {
	d := startDaemon(t)
	for _, handler := range []string{"moat", "native"} {
		p := newPodBy(d, handler)
		end, _ := p.run("exit 3", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 2, HugepageLimits: []*runtimeapi.HugepageLimit{
				{PageSize: "2MB", Limit: 0}, {PageSize: "1GB", Limit: 0}}}
		})
		equal(t, end.ExitCode, 3, handler+": exit code")
	}
}

// A native container writes into a layer of its own: neither its image nor another container sees it.
func TestANativeRootIsItsOwn(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	p := newPodBy(d, "native")
	_, out := p.run("echo changed > /etc/passwd; rm /bin/true; ls /etc/passwd; test -e /bin/true || echo gone")
	equal(t, out, "/etc/passwd\ngone\n", "the first container")
	_, out = p.run("grep -c root /etc/passwd; test -e /bin/true && echo there")
	equal(t, out, "1\nthere\n", "the second container")
	end, out := p.run("touch /x || echo refused", func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: true}
	})
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, "refused\n", "a read-only root")
	running, log := p.start("head -c 3000000 /dev/zero > /big; echo up; sleep 1000")
	waitForOutput(t, log, "up")
	stats, err := d.runtime.ContainerStats(ctx, running)
	must(t, err)
	if used := stats.WritableLayer.GetUsedBytes().GetValue(); used < 3000000 || used > 4000000 {
		t.Errorf("writable layer: %d bytes", used)
	}
}
