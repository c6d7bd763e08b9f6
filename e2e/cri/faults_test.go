package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// aLife is a pod from its image to its removal. It returns at the first error: the daemon is gone then.
func aLife(d *Daemon, config *runtimeapi.PodSandboxConfig) error {
	if _, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}, nil, nil); err != nil {
		return err
	}
	pod, err := d.runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		return err
	}
	container, err := d.runtime.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: busyboxImage},
		Command: []string{"/bin/sh", "-c", "echo up; sleep 1000"}, LogPath: "c.log", Linux: &runtimeapi.LinuxContainerConfig{}}, config)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return d.runtime.StartContainer(ctx, container) },
		func() error { return d.runtime.StopContainer(ctx, container, 0) },
		func() error { return d.runtime.RemoveContainer(ctx, container) },
		func() error { return d.runtime.StopPodSandbox(ctx, pod) },
		func() error { return d.runtime.RemovePodSandbox(ctx, pod) },
		func() error { return d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// The points are those that a life passes: the list is found, not written down. MOAT_E2E_FAULTS=all kills at each
// passing of each, else at the first and the last.
func TestKilledAtEveryPointOfAPodsLife(t *testing.T) {
	moatOnly(t, "it has no such points")
	seen := filepath.Join(t.TempDir(), "seen")
	dir, err := os.MkdirTemp(scratchDir, "f")
	must(t, err)
	t.Setenv("MOAT_FAULT_POINTS_SEEN", seen)
	d := startDaemonIn(t, dir)
	must(t, os.WriteFile(seen, nil, 0o600)) // what the start passes is not the pod's life
	config := podConfig(d)
	config.PortMappings = []*runtimeapi.PortMapping{{HostPort: 12090, ContainerPort: 80}}
	must(t, aLife(d, config))
	data, err := os.ReadFile(seen)
	must(t, err)
	os.Unsetenv("MOAT_FAULT_POINTS_SEEN")
	d.stop()
	passings := map[string]int{}
	var points []string
	for _, name := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		passings[name]++
		points = append(points, fmt.Sprintf("%s#%d", name, passings[name]))
	}
	if len(points) < 50 {
		t.Errorf("a life passes %d points only: %v", len(points), points)
	}
	d.start()
	d.stop()
	clean := takeSnapshot()
	died := 0
	for _, point := range points {
		name, number, _ := strings.Cut(point, "#")
		if os.Getenv("MOAT_E2E_FAULTS") != "all" && number != "1" && number != fmt.Sprint(passings[name]) {
			continue
		}
		// Both managers count from the daemon's start, which passes some of the points itself.
		os.Setenv("MOAT_FAULT_POINT", point)
		d.startAnyhow()
		config.Metadata.Attempt++
		failed := d.runtime == nil || aLife(d, config) != nil
		os.Unsetenv("MOAT_FAULT_POINT")
		if failed {
			died++
			d.reap()
		} else {
			d.stop()
		}
		d.start()
		checkSettled(t, d, config, point)
		d.stop()
		var leaks []string
		deadline := time.Now().Add(10 * time.Second)
		for leaks = takeSnapshot().moreThan(clean); len(leaks) > 0 && time.Now().Before(deadline); leaks = takeSnapshot().moreThan(clean) {
			time.Sleep(20 * time.Millisecond)
		}
		for _, leak := range leaks {
			t.Errorf("killed at %s: %s", point, leak)
		}
		for _, kind := range []string{"lib/pods", "lib/containers", "run/moatd/netns", "lib/images/layers", "lib/images/roots", "lib/images/tmp"} {
			if left, _ := os.ReadDir(filepath.Join(dir, kind)); len(left) != 0 {
				t.Errorf("killed at %s: left in %s: %v", point, kind, left)
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d points, %d kills", len(points), died)
	if died < 40 {
		t.Errorf("only %d kills", died)
	}
	d.start()
}

// checkSettled looks at what a restarted daemon knows, and removes it by the client's own calls.
func checkSettled(t *testing.T, d *Daemon, config *runtimeapi.PodSandboxConfig, point string) {
	t.Helper()
	containers, err := d.runtime.ListContainers(ctx, nil)
	must(t, err)
	for _, container := range containers {
		if container.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
			t.Errorf("killed at %s: container in an unknown state", point)
		}
	}
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	for _, pod := range pods {
		must(t, d.runtime.StopPodSandbox(ctx, pod.Id))
		must(t, d.runtime.RemovePodSandbox(ctx, pod.Id))
	}
	// Nothing of the half-made blocks the same pod, its name, its port.
	if err := aLife(d, config); err != nil {
		t.Errorf("killed at %s: the same pod again: %v", point, err)
	}
}

// startAnyhow starts a daemon that may die before it answers.
func (d *Daemon) startAnyhow() {
	d.t.Helper()
	d.launch()
	d.runtime, d.images = nil, nil
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) && d.tryConnect() != nil {
		var status syscall.WaitStatus
		if pid, _ := syscall.Wait4(d.command.Process.Pid, &status, syscall.WNOHANG, nil); pid != 0 {
			d.command = nil
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reap waits for a daemon that has killed itself.
func (d *Daemon) reap() {
	d.t.Helper()
	if d.command != nil {
		done := make(chan struct{})
		go func() { d.command.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			d.t.Errorf("the daemon lives, and a call failed; its log:\n%s", d.lastLog())
			d.command.Process.Kill()
			<-done
		}
	}
	if d.runtime != nil {
		d.runtime.Close(ctx)
		d.images.Close(ctx)
	}
	d.log.Close()
	d.command = nil
}
