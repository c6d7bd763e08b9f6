package cri

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// A crowd is pods that are made, looked at and removed by several clients at once, each with a connection of its own.
type crowd struct {
	*Daemon
	mu     sync.Mutex
	times  map[string][]time.Duration // by RPC
	errors []string
	pods   []*member
}

// member is one pod with one container.
type member struct {
	number         int
	config         *runtimeapi.PodSandboxConfig
	pod, container string
}

func numberOf(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

func (c *crowd) timed(rpc string, call func() error) error {
	began := time.Now()
	err := call()
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[rpc] = append(c.times[rpc], took)
	return err
}

func (c *crowd) wrong(m *member, format string, arguments ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors = append(c.errors, fmt.Sprintf("pod %d: ", m.number)+fmt.Sprintf(format, arguments...))
}

// all has the clients do one thing to every member, and waits for them.
func (c *crowd) all(clients []internalapi.RuntimeService, do func(client internalapi.RuntimeService, m *member) error) {
	next := make(chan *member)
	var done sync.WaitGroup
	for _, client := range clients {
		done.Add(1)
		go func() {
			defer done.Done()
			for m := range next {
				if err := do(client, m); err != nil {
					c.wrong(m, "%v", err)
				}
			}
		}()
	}
	for _, m := range c.pods {
		next <- m
	}
	close(next)
	done.Wait()
}

func (c *crowd) make(client internalapi.RuntimeService, m *member) (err error) {
	step := func(rpc string, call func() error) {
		if err == nil {
			if err = c.timed(rpc, call); err != nil {
				err = fmt.Errorf("%s: %w", rpc, err)
			}
		}
	}
	state := func(wanted runtimeapi.ContainerState) {
		step("ContainerStatus", func() error {
			answer, err := client.ContainerStatus(ctx, m.container, false)
			if err == nil && answer.Status.State != wanted {
				c.wrong(m, "its container is %v, expected %v", answer.Status.State, wanted)
			}
			return err
		})
	}
	step("RunPodSandbox", func() (err error) { m.pod, err = client.RunPodSandbox(ctx, m.config, ""); return })
	step("PodSandboxStatus", func() error {
		answer, err := client.PodSandboxStatus(ctx, m.pod, false)
		if err == nil && (answer.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || answer.Status.Metadata.Name != m.config.Metadata.Name) {
			c.wrong(m, "it is %v", answer.Status)
		}
		return err
	})
	step("CreateContainer", func() (err error) {
		m.container, err = client.CreateContainer(ctx, m.pod, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: busyboxImage}, LogPath: "c.log",
			Command: []string{"/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait; done"}, Linux: &runtimeapi.LinuxContainerConfig{}}, m.config)
		return
	})
	state(runtimeapi.ContainerState_CONTAINER_CREATED)
	step("StartContainer", func() error { return client.StartContainer(ctx, m.container) })
	state(runtimeapi.ContainerState_CONTAINER_RUNNING)
	step("ExecSync", func() error {
		out, _, err := client.ExecSync(ctx, m.container, []string{"/bin/hostname"}, time.Minute)
		if err == nil && strings.TrimSpace(string(out)) != m.config.Hostname {
			c.wrong(m, "its host name is %q", out)
		}
		return err
	})
	return err
}

func (c *crowd) unmake(client internalapi.RuntimeService, m *member) (err error) {
	step := func(rpc string, call func() error) {
		if err == nil {
			if err = c.timed(rpc, call); err != nil {
				err = fmt.Errorf("%s: %w", rpc, err)
			}
		}
	}
	step("StopContainer", func() error { return client.StopContainer(ctx, m.container, 60) })
	step("ContainerStatus", func() error {
		answer, err := client.ContainerStatus(ctx, m.container, false)
		if err == nil && (answer.Status.State != runtimeapi.ContainerState_CONTAINER_EXITED || answer.Status.ExitCode != 7) {
			c.wrong(m, "its stopped container is %v, exit code %d", answer.Status.State, answer.Status.ExitCode)
		}
		return err
	})
	step("RemoveContainer", func() error { return client.RemoveContainer(ctx, m.container) })
	step("StopPodSandbox", func() error { return client.StopPodSandbox(ctx, m.pod) })
	step("PodSandboxStatus", func() error {
		answer, err := client.PodSandboxStatus(ctx, m.pod, false)
		if err == nil && answer.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			c.wrong(m, "stopped it is %v", answer.Status.State)
		}
		return err
	})
	step("RemovePodSandbox", func() error { return client.RemovePodSandbox(ctx, m.pod) })
	if err == nil {
		if _, gone := client.PodSandboxStatus(ctx, m.pod, false); status.Code(gone) != codes.NotFound {
			c.wrong(m, "removed, its status is %v", gone)
		}
	}
	return err
}

// look checks what the lists say while everybody is there.
func (c *crowd) look() {
	c.t.Helper()
	pods, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}})
	must(c.t, err)
	equal(c.t, len(pods), len(c.pods), "pods ready")
	containers, err := c.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	must(c.t, err)
	equal(c.t, len(containers), len(c.pods), "containers running")
	addresses := map[string]bool{}
	for _, m := range c.pods {
		if m.pod == "" {
			continue
		}
		answer, err := c.runtime.PodSandboxStatus(ctx, m.pod, false)
		must(c.t, err)
		addresses[answer.Status.Network.GetIp()] = true
	}
	equal(c.t, len(addresses), len(c.pods), "addresses")
}

func (c *crowd) count(limit int, kinds map[string]int) (more []string) {
	for kind, n := range c.descriptors() {
		if n > kinds[kind]+limit {
			more = append(more, fmt.Sprintf("%d of %s, were %d", n, kind, kinds[kind]))
		}
	}
	sort.Strings(more)
	return more
}

// figure is one line of the report.
type figure struct {
	RPC           string
	Count         int
	P50, P99, Max float64 // milliseconds
}

func (c *crowd) figures() []figure {
	var all []figure
	for rpc, times := range c.times {
		sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
		at := func(part float64) float64 {
			return float64(times[int(part*float64(len(times)-1))].Microseconds()) / 1000
		}
		all = append(all, figure{rpc, len(times), at(0.5), at(0.99), at(1)})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].RPC < all[j].RPC })
	return all
}

// MOAT_STRESS_PODS, MOAT_STRESS_CLIENTS: how many (make stress-cri). MOAT_STRESS_REPORT: a file for the figures.
func TestACrowdOfPods(t *testing.T) {
	eachHandler(t, func(t *testing.T) {
		pods, clients := numberOf("MOAT_STRESS_PODS", 24), numberOf("MOAT_STRESS_CLIENTS", 8)
		c := &crowd{Daemon: startDaemon(t), times: map[string][]time.Duration{}}
		pull(c.Daemon, busyboxImage)
		warm := newPod(c.Daemon) // threads and connections that stay
		must(t, c.runtime.StopPodSandbox(ctx, warm.id))
		must(t, c.runtime.RemovePodSandbox(ctx, warm.id))
		for i := range pods {
			config := podConfig(c.Daemon)
			config.Hostname = fmt.Sprintf("host%d", i)
			c.pods = append(c.pods, &member{number: i, config: config})
		}
		var connections []internalapi.RuntimeService
		for range clients {
			client, err := criclient.NewRemoteRuntimeService(ctx, "unix://"+c.socket, 5*time.Minute, nil, false)
			must(t, err)
			defer client.Close(ctx)
			connections = append(connections, client)
		}
		before := c.descriptors()
		began := time.Now()
		c.all(connections, c.make)
		made := time.Since(began)
		if len(c.errors) == 0 {
			c.look()
		}
		began = time.Now()
		c.all(connections, c.unmake)
		unmade := time.Since(began)
		for _, text := range c.errors[:min(len(c.errors), 20)] {
			t.Error(text)
		}
		left, err := c.runtime.ListPodSandbox(ctx, nil)
		must(t, err)
		equal(t, len(left), 0, "pods in the end")
		var more []string
		deadline := time.Now().Add(10 * time.Second)
		for more = c.count(2, before); len(more) > 0 && time.Now().Before(deadline); more = c.count(2, before) {
			time.Sleep(20 * time.Millisecond)
		}
		if len(more) > 0 && !isReference() {
			t.Errorf("descriptors of the daemon: %v", more)
		}
		t.Logf("%d pods by %d clients: made in %.1f s, removed in %.1f s", pods, clients, made.Seconds(), unmade.Seconds())
		for _, f := range c.figures() {
			t.Logf("%-17s %5d  p50 %8.1f ms  p99 %8.1f ms  max %8.1f ms", f.RPC, f.Count, f.P50, f.P99, f.Max)
		}
		if path := os.Getenv("MOAT_STRESS_REPORT"); path != "" {
			file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			must(t, err)
			defer file.Close()
			must(t, json.NewEncoder(file).Encode(map[string]any{"handler": defaultHandler, "pods": pods, "clients": clients,
				"made": made.Seconds(), "unmade": unmade.Seconds(), "figures": c.figures()}))
		}
	})
}
