package cri

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cgroupFile reads a control file of a container or, with no container, of its pod, in cgroup v1's hierarchy or in v2.
func cgroupFile(t *testing.T, pod *Pod, container, v1, v2 string) string {
	t.Helper()
	controller, _, _ := strings.Cut(v1, ".")
	root, file := filepath.Join("/sys/fs/cgroup", controller), v1
	if file == "memory.procs" {
		file = v2 // the one file that has the same name in both
	}
	if _, err := os.Stat(root); err != nil {
		root, file = "/sys/fs/cgroup", v2
	}
	data, err := os.ReadFile(filepath.Join(root, cgroupName, pod.id, container, file))
	if err != nil {
		// A container's cgroup is beside the pod's sentry or directly below the parent.
		data, err = os.ReadFile(filepath.Join(root, cgroupName, container, file))
	}
	must(t, err)
	return strings.TrimSpace(string(data))
}

func (d *Daemon) exec(id string, command ...string) string {
	d.t.Helper()
	stdout, stderr, err := d.runtime.ExecSync(ctx, id, command, 30*time.Second)
	if err != nil {
		d.t.Fatalf("%v: %v: %s", command, err, stderr)
	}
	return strings.TrimSpace(string(stdout))
}

func TestUpdateContainerResources(t *testing.T) {
	moatOnly(t, "its cgroups lie elsewhere")
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512}
	})
	other, _ := p.start("sleep 1000")
	guest := func(what string) string {
		return d.exec(id, "/bin/sh", "-c", what)
	}
	total := func(of string) string { return d.exec(of, "/bin/sh", "-c", "grep MemTotal /proc/meminfo | tr -dc 0-9") }
	equal(t, total(id), fmt.Sprint(64<<10), "MemTotal before")
	host := total(other)
	check := func(memory int64, quota, shares int64) {
		t.Helper()
		equal(t, cgroupFile(t, p, id, "memory.limit_in_bytes", "memory.max"), fmt.Sprint(memory), "the cgroup's memory limit")
		if text := cgroupFile(t, p, id, "cpu.cfs_quota_us", "cpu.max"); strings.Fields(text)[0] != fmt.Sprint(quota) {
			t.Errorf("the cgroup's CPU quota: %s", text)
		}
		equal(t, total(id), fmt.Sprint(memory>>10), "MemTotal in the guest")
		equal(t, total(other), host, "MemTotal of its neighbour")
		linux := d.status(id).Resources.Linux
		equal(t, fmt.Sprint(linux.MemoryLimitInBytes, linux.CpuQuota, linux.CpuPeriod, linux.CpuShares), fmt.Sprint(memory, quota, 100000, shares), "ContainerStatus.resources")
	}
	check(64<<20, 50000, 512)
	must(t, d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: 128 << 20, CpuQuota: 150000, CpuPeriod: 100000}}))
	check(128<<20, 150000, 512)
	// Half of a request is never done: the CPUs do not exist.
	err := d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: 256 << 20, CpuQuota: 70000, CpuPeriod: 50000, CpuShares: 100, CpusetCpus: "4000"}})
	failsWith(t, err, codes.InvalidArgument, "cpuset.cpus")
	check(128<<20, 150000, 512)
	for field, wrong := range map[string]*runtimeapi.LinuxContainerResources{
		"cpu_period":            {CpuPeriod: 7},
		"cpu_quota":             {CpuQuota: -2},
		"cpu_shares":            {CpuShares: 1},
		"memory_limit_in_bytes": {MemoryLimitInBytes: -5},
		"oom_score_adj":         {OomScoreAdj: 1001},
		"cpuset_cpus":           {CpusetCpus: "../x"},
		"hugepage_limits":       {HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "../2MB"}}},
		"unified":               {Unified: map[string]string{"../memory.max": "1"}},
	} {
		failsWith(t, d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: wrong}), codes.InvalidArgument, field)
	}
	failsWith(t, d.runtime.UpdateContainerResources(ctx, "no such", &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 5}}), codes.NotFound)
	// A new moatd knows, and goes on from there.
	d.kill()
	d.start()
	check(128<<20, 150000, 512)
	must(t, d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{
		CpusetCpus: "0", CpuShares: 2048, HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 0}}}}))
	check(128<<20, 150000, 2048)
	equal(t, guest("nproc; grep Cpus_allowed_list /proc/self/status | tr -dc 0-9-"), "1\n0", "CPUs in the guest")
	must(t, d.runtime.StopContainer(ctx, id, 0))
	must(t, d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 4}}))
	equal(t, d.status(id).Resources.Linux.CpuShares, 4, "shares of an ended container")
}

func TestGuestsReadTheirLimitsInCgroupFiles(t *testing.T) {
	moatOnly(t, "it shows the host's")
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 1024}
	})
	read := func() string {
		return d.exec(id, "/bin/sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight cpuset.cpus.effective")
	}
	all := d.exec(id, "cat", "/sys/fs/cgroup/cpuset.cpus.effective")
	equal(t, read(), fmt.Sprintf("%d\n50000 100000\n100\n%s", 96<<20, all), "before")
	must(t, d.runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{
		MemoryLimitInBytes: 48 << 20, CpuQuota: -1, CpuShares: 2, CpusetCpus: "0"}}))
	equal(t, read(), fmt.Sprintf("%d\nmax 100000\n1\n0", 48<<20), "after")
}

func TestUpdatePodSandboxResources(t *testing.T) {
	moatOnly(t, "it may have no such RPC")
	d := startDaemon(t)
	p := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 100 << 20}
		c.Linux.Overhead = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 50 << 20}
	})
	id, _ := p.start("sleep 1000")
	total := func() string { return d.exec(id, "/bin/sh", "-c", "grep MemTotal /proc/meminfo | tr -dc 0-9") }
	host := total()
	if kib, err := strconv.Atoi(host); err != nil || kib <= 150<<10 {
		t.Errorf("MemTotal before: %s", host)
	}
	raw := d.raw()
	_, err := raw.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
		Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 200 << 20}, Overhead: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 56 << 20}})
	must(t, err)
	equal(t, cgroupFile(t, p, "", "memory.limit_in_bytes", "memory.max"), fmt.Sprint(256<<20), "the pod's limit after")
	equal(t, total(), fmt.Sprint(256<<10), "MemTotal after")
	_, err = raw.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "no such"})
	failsWith(t, err, codes.NotFound)
	_, err = raw.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id, Resources: &runtimeapi.LinuxContainerResources{CpuQuota: -7}})
	failsWith(t, err, codes.InvalidArgument, "resources", "cpu_quota")
	must(t, d.runtime.StopPodSandbox(ctx, p.id))
	_, err = raw.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id})
	failsWith(t, err, codes.FailedPrecondition, "not ready")
}

// Kubelet's order of a resize: first the runtime hears of the larger quota, then the pod's cgroup above gets it.
func TestPodGrowsBeforeItsParent(t *testing.T) {
	moatOnly(t, "it may have no such RPC")
	top := filepath.Join("/sys/fs/cgroup/cpu", cgroupName, "kubelets-pod")
	if _, err := os.Stat("/sys/fs/cgroup/cpu"); err != nil {
		t.Skip("cgroup v2 allows it anyway")
	}
	d := startDaemon(t)
	must(t, os.Mkdir(top, 0o755))
	t.Cleanup(func() { os.Remove(top) })
	must(t, os.WriteFile(filepath.Join(top, "cpu.cfs_quota_us"), []byte("20000"), 0o644))
	for _, handler := range []string{"moat", "native"} {
		p := newPodBy(d, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Metadata.Uid = handler
			c.Linux.CgroupParent = "/" + cgroupName + "/kubelets-pod"
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000}
		})
		update := func(quota int64, wanted string) {
			t.Helper()
			_, err := d.raw().UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
				Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: quota}})
			must(t, err)
			data, err := os.ReadFile(filepath.Join(top, p.id, "cpu.cfs_quota_us"))
			must(t, err)
			equal(t, strings.TrimSpace(string(data)), wanted, handler+": the pod's own quota")
		}
		update(40000, "-1")
		update(15000, "15000")
		must(t, d.runtime.StopPodSandbox(ctx, p.id))
		must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	}
}

// Kubelet sends the sum of those limits that containers have, of pods too whose other containers have none. What holds
// for the pod is what it sets in the cgroup above.
func TestTheSumOfLimitsIsNoLimitOfThePod(t *testing.T) {
	d := startDaemon(t)
	parent := filepath.Join("/sys/fs/cgroup/memory", cgroupName, "limited")
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("reads files of cgroup v1")
	}
	must(t, os.Mkdir(parent, 0o755))
	t.Cleanup(func() { os.Remove(parent) })
	must(t, os.WriteFile(filepath.Join(parent, "memory.limit_in_bytes"), []byte(fmt.Sprint(512<<20)), 0o644))
	for _, handler := range []string{"moat", "native"} {
		p := newPodBy(d, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Metadata.Uid = handler
			c.Linux.CgroupParent = "/" + cgroupName + "/limited"
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuPeriod: 100000, CpuQuota: 5000}
		})
		limited, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}
		})
		free, log := p.start("dd if=/dev/zero of=/dev/null bs=80M count=2 && echo fits; exec sleep 1000")
		waitForOutput(t, log, "fits")
		for _, id := range []string{limited, free} {
			equal(t, d.status(id).State, runtimeapi.ContainerState_CONTAINER_RUNNING, handler)
		}
		if handler == "moat" {
			equal(t, d.exec(free, "/bin/sh", "-c", "grep MemTotal /proc/meminfo | tr -dc 0-9"), fmt.Sprint(512<<10), "MemTotal is the limit above")
		}
		must(t, d.runtime.StopPodSandbox(ctx, p.id))
		must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	}
}

func TestOOMIsOneContainersAffair(t *testing.T) {
	p := newPod(startDaemon(t))
	const limit = 32 << 20
	limited := func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: limit, MemorySwapLimitInBytes: limit}
	}
	neighbour, log := p.start("i=0; while :; do echo $i; i=$((i + 1)); usleep 10000; done", limited)
	// dd's one buffer does not fit.
	end, _ := p.run("dd if=/dev/zero of=/dev/null bs=100M count=1", limited)
	equal(t, end.ExitCode, 137, "exit code")
	equal(t, end.Reason, "OOMKilled", "reason")
	// A shell that loses a child and says so.
	child, _ := p.run("sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; exit $?'; exit $?", limited)
	equal(t, fmt.Sprint(child.ExitCode, child.Reason), "137OOMKilled", "a child's end")
	// One that gets over it, and one that is killed by somebody else. The child touches its memory itself: where
	// the sentry does it for a guest, the host may kill a second process (cri/README.md).
	over, out := p.run(`awk 'BEGIN { s = "0123456789abcdef"; while (length(s) < 100000000) s = s s }'; echo $?; exit 0`, limited)
	equal(t, fmt.Sprint(over.ExitCode, over.Reason), "0Completed", "one that goes on: "+out)
	equal(t, out, "137\n", "the child's exit status")
	killed, _ := p.run("kill -9 $$; sh -c 'kill -9 $$'; exit $?", limited)
	equal(t, fmt.Sprint(killed.ExitCode, killed.Reason), "137Error", "a plain SIGKILL")
	equal(t, p.status(neighbour).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the neighbour")
	lines := strings.Count(stdoutOf(t, log), "\n")
	waitFor(t, 30*time.Second, func() bool { return strings.Count(stdoutOf(t, log), "\n") > lines+5 }, func() string { return "the neighbour goes on" })
	state, err := p.runtime.PodSandboxStatus(ctx, p.id, false)
	must(t, err)
	equal(t, state.Status.State, runtimeapi.PodSandboxState_SANDBOX_READY, "the pod")
}

func TestOOMKillIsNotForgottenByARestart(t *testing.T) {
	moatOnly(t, "its shims tell a living containerd")
	d := startDaemon(t)
	p := newPod(d)
	fifo := filepath.Join(d.dir, "go")
	must(t, os.Mkdir(fifo, 0o777))
	id, _ := p.start("while [ ! -e /go/now ]; do usleep 10000; done; dd if=/dev/zero of=/dev/null bs=100M count=1", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/go", HostPath: fifo}}
	})
	d.kill()
	must(t, os.WriteFile(filepath.Join(fifo, "now"), nil, 0o644))
	waitFor(t, 30*time.Second, func() bool {
		return strings.Contains(cgroupFile(t, p, id, "memory.oom_control", "memory.events"), "oom_kill 1")
	}, func() string { return "a process is killed while no moatd runs" })
	d.start()
	end := d.exited(id)
	equal(t, fmt.Sprint(end.ExitCode, end.Reason), "137OOMKilled", "the end that no moatd saw")
}

// follow reads a stream of events into a channel, and returns once nothing can be missed.
func follow(t *testing.T, d *Daemon) <-chan *runtimeapi.ContainerEventResponse {
	t.Helper()
	stream, err := d.raw().GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	must(t, err)
	_, err = stream.Header()
	must(t, err)
	events := make(chan *runtimeapi.ContainerEventResponse, 10000)
	go func() {
		defer close(events)
		for {
			event, err := stream.Recv()
			if err != nil {
				return
			}
			events <- event
		}
	}()
	return events
}

func nextEvent(t *testing.T, events <-chan *runtimeapi.ContainerEventResponse) *runtimeapi.ContainerEventResponse {
	t.Helper()
	select {
	case event := <-events:
		if event == nil {
			t.Fatal("the stream ended")
		}
		return event
	case <-time.After(30 * time.Second):
		t.Fatal("no event")
	}
	return nil
}

func TestContainerEvents(t *testing.T) {
	moatOnly(t, "it has them only when configured")
	d := startDaemon(t)
	first, second := follow(t, d), follow(t, d)
	p := newPod(d)
	id, _ := p.start("exit 3")
	p.exited(id)
	must(t, d.runtime.RemoveContainer(ctx, id))
	must(t, d.runtime.StopPodSandbox(ctx, p.id))
	must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	names := map[string]string{p.id: "pod", id: "container"}
	for _, events := range []<-chan *runtimeapi.ContainerEventResponse{first, second} {
		var story []string
		last := int64(0)
		for range 8 {
			event := nextEvent(t, events)
			what := strings.TrimSuffix(strings.TrimPrefix(event.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
			story = append(story, names[event.ContainerId]+" "+strings.ToLower(what))
			if event.CreatedAt < last || event.CreatedAt == 0 {
				t.Errorf("an event of %d after one of %d", event.CreatedAt, last)
			}
			last = event.CreatedAt
			if what != "DELETED" || names[event.ContainerId] == "container" {
				if event.PodSandboxStatus.GetId() != p.id {
					t.Errorf("no status of the pod: %v", event)
				}
			}
			if names[event.ContainerId] == "container" && what == "STOPPED" {
				equal(t, len(event.ContainersStatuses), 1, "statuses of containers")
				equal(t, fmt.Sprint(event.ContainersStatuses[0].State, event.ContainersStatuses[0].ExitCode, event.ContainersStatuses[0].Reason), "CONTAINER_EXITED 3Error", "status in the event of its end")
			}
			if names[event.ContainerId] == "container" && what == "CREATED" {
				equal(t, event.ContainersStatuses[0].State, runtimeapi.ContainerState_CONTAINER_CREATED, "status in the event of its creation")
			}
		}
		equal(t, strings.Join(story, ", "), "pod created, pod started, container created, container started, container stopped, container deleted, pod stopped, pod deleted", "a pod's life")
	}
}

// TestStuckSubscriber: one that does not read loses its own stream and nobody else's.
func TestStuckSubscriber(t *testing.T) {
	moatOnly(t, "it has them only when configured")
	d := startDaemon(t)
	stuck, err := d.raw().GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	must(t, err)
	_, err = stuck.Header()
	must(t, err)
	events := follow(t, d)
	p := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		// A status of some size, so that the windows of the connection are full soon.
		c.Annotations = map[string]string{"filler": strings.Repeat("x", 200000)}
	})
	seen := 0
	count := func(wanted int) {
		for seen < wanted {
			nextEvent(t, events)
			seen++
		}
	}
	count(2)
	for range 30 {
		id, _ := p.create("exit 0")
		must(t, d.runtime.RemoveContainer(ctx, id))
	}
	count(62)
	// moatd ends although somebody still does not read.
	d.stop()
	d.start()
	for {
		if _, err := stuck.Recv(); err != nil {
			if err == io.EOF {
				t.Error("a stream that was cut short ended as if it were whole")
			}
			break
		}
	}
}

// scores returns the different OOM scores of a container's host processes.
func scores(t *testing.T, p *Pod, id string) string {
	t.Helper()
	found := map[string]bool{}
	for _, pid := range strings.Fields(cgroupFile(t, p, id, "memory.procs", "cgroup.procs")) {
		if data, err := os.ReadFile(filepath.Join("/proc", pid, "oom_score_adj")); err == nil {
			found[strings.TrimSpace(string(data))] = true
		}
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(found), ":true", ""), "map[]")
}

// TestPodOutOfMemory: when it is the pod's limit that is hit, the container goes that was marked for it.
func TestPodOutOfMemory(t *testing.T) {
	moatOnly(t, "it does not limit the pod itself")
	d := startDaemon(t)
	p := newPod(d)
	_, err := d.raw().UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
		Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20}})
	must(t, err)
	scored := func(value int64) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: value}
		}
	}
	neighbour, _ := p.start("while :; do /bin/true; usleep 1000; done", scored(300))
	equal(t, scores(t, p, neighbour), "300", "scores")
	must(t, d.runtime.UpdateContainerResources(ctx, neighbour, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{OomScoreAdj: 400}}))
	equal(t, scores(t, p, neighbour), "400", "scores after an update")
	end, _ := p.run("dd if=/dev/zero of=/dev/null bs=200M count=1", scored(1000))
	equal(t, fmt.Sprint(end.ExitCode, end.Reason), "137OOMKilled", "the one that asked for too much")
	equal(t, p.status(neighbour).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the neighbour")
	equal(t, d.exec(neighbour, "echo", "alive"), "alive", "the neighbour's word")
}
