package cri

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What guests write to files in memory is the sentry's memory. It may not be without bound: not beyond the container's
// limit for each file system, and the pod's figures contain it.
func TestFilesInMemoryAreBounded(t *testing.T) {
	moatOnly(t, "its upper layer is on the disk")
	p := newPod(startDaemon(t))
	limited := func(bytes int64) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: bytes}
		}
	}
	_, out := p.run("dd if=/dev/zero of=/big bs=64k 2>&1 | grep -o 'No space left.*'; wc -c < /big; rm /big; echo room > /more && cat /more; df -m / | tail -n 1 | awk '{print $2}'", limited(24<<20))
	equal(t, out, "No space left on device\n25165824\nroom\n24\n", "the root of a container of 24 MiB")
	_, out = p.run("dd if=/dev/zero of=/dev/shm/big bs=64k 2>&1 | grep -o 'No space left.*'; wc -c < /dev/shm/big; rm /dev/shm/big", limited(200<<20))
	equal(t, out, "No space left on device\n67108864\n", "/dev/shm")

	id, log := p.start("dd if=/dev/zero of=/kept bs=1M count=48 2>/dev/null; echo written; sleep 1000")
	waitForOutput(t, log, "written")
	stats, err := p.runtime.PodSandboxStats(ctx, p.id)
	must(t, err)
	if used := stats.Linux.Memory.UsageBytes.GetValue(); used < 48<<20 {
		t.Errorf("the pod uses %d bytes, 48 MiB were written", used)
	}
	one, err := p.runtime.ContainerStats(ctx, id)
	must(t, err)
	if written := one.WritableLayer.UsedBytes.GetValue(); written < 48<<20 {
		t.Errorf("the container's layer has %d bytes", written)
	}
}

// A pod's own limit holds for its sentry too: one that fills files without a limit of its container's is ended, and
// nobody else notices.
func TestFilesInMemoryMeetThePodsLimit(t *testing.T) {
	moatOnly(t, "its upper layer is on the disk")
	d := startDaemon(t)
	p := newPod(d)
	_, err := d.raw().UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
		Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 160 << 20}})
	must(t, err)
	other := newPod(d)
	bystander, _ := other.start("sleep 1000")
	id, _ := p.start("exec dd if=/dev/zero of=/big bs=1M count=1000")
	end := p.exited(id)
	t.Logf("it ended with %d, %s: %s", end.ExitCode, end.Reason, end.Message)
	if end.ExitCode == 0 {
		t.Errorf("1000 MiB fit into a pod of 160 MiB")
	}
	equal(t, d.status(bystander).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "a container of another pod")
	_, out := other.run("echo fine")
	equal(t, out, "fine\n", "another container there")
}
