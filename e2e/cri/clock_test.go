package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const libfaketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

// withClock starts a daemon whose CLOCK_REALTIME, and nobody else's, the returned function sets apart from the machine's.
func withClock(t *testing.T) (*Daemon, func(offset time.Duration)) {
	t.Helper()
	moatOnly(t, "libfaketime and Go's own system calls do not meet")
	if _, err := os.Stat(libfaketime); err != nil {
		t.Fatalf("Debian's package faketime: %v", err)
	}
	dir, err := os.MkdirTemp(scratchDir, "c")
	must(t, err)
	file := filepath.Join(dir, "offset")
	set := func(offset time.Duration) {
		must(t, os.WriteFile(file+".new", []byte(fmt.Sprintf("%+d\n", int64(offset.Seconds()))), 0o644))
		must(t, os.Rename(file+".new", file))
	}
	set(0)
	t.Setenv("LD_PRELOAD", libfaketime)
	t.Setenv("FAKETIME_TIMESTAMP_FILE", file)
	t.Setenv("FAKETIME_NO_CACHE", "1")
	t.Setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
	t.Setenv("FAKETIME_DONT_RESET", "1")
	d := startDaemonIn(t, dir)
	// Of this program only what it starts itself from now on is meant: not mkimage and the like.
	return d, set
}

// took runs a call that the clock must not hurry or hold up, sets the clock in its middle, and wants it to take about `wanted`.
func took(t *testing.T, what string, wanted time.Duration, jump func(), call func()) {
	t.Helper()
	began := time.Now()
	done := make(chan struct{})
	go func() { call(); close(done) }()
	time.Sleep(wanted / 2) // what waits has to have begun to: the jump is meant to meet it there
	jump()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Errorf("%s: not done a minute after the clock was set", what)
		<-done
	}
	if spent := time.Since(began); spent < wanted-100*time.Millisecond {
		t.Errorf("%s: done after %v, not %v", what, spent, wanted)
	}
}

func TestTheClockIsSet(t *testing.T) {
	d, set := withClock(t)
	p := newPod(d)
	const year = 365 * 24 * time.Hour
	var lastCreated, lastEvent int64
	events := d.listenEvents()
	for _, offset := range []time.Duration{0, year, -3 * year, 10 * year, -time.Hour} {
		next := map[bool]time.Duration{true: -year, false: year}[offset > 0]
		stubborn, log := p.start("trap '' TERM; echo up; while :; do sleep 0.1; done")
		waitForOutput(t, log, "up")
		took(t, "StopContainer with a grace period", 2*time.Second, func() { set(next) }, func() {
			if err := d.runtime.StopContainer(ctx, stubborn, 2); err != nil {
				t.Errorf("StopContainer: %v", err)
			}
		})
		equal(t, d.status(stubborn).ExitCode, 137, "exit code of what ignores the stop signal")
		set(offset)
		id, log := p.start("echo up; sleep 1000")
		waitForOutput(t, log, "up")
		took(t, "ExecSync with a timeout", time.Second, func() { set(next) }, func() {
			_, _, err := d.runtime.ExecSync(ctx, id, []string{"sleep", "100"}, time.Second)
			if err == nil || !strings.Contains(err.Error(), "timed out after 1s") { // the client library's words for DEADLINE_EXCEEDED
				t.Errorf("ExecSync: %v", err)
			}
		})
		// A token that the client was given before the clock was set is good for its minute, and only once.
		set(offset)
		answer, err := d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"echo", "token"}, Stdout: true})
		must(t, err)
		set(next)
		var out buffer
		if err := executor(t, "spdy", answer.Url).StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &out}); err != nil || out.String() != "token\n" {
			t.Errorf("exec after the clock was set by %v: %q, %v", next-offset, out.String(), err)
		}
		status := d.status(id)
		if status.CreatedAt <= lastCreated {
			t.Errorf("a later container seems older: %d after %d", status.CreatedAt, lastCreated)
		}
		lastCreated = status.CreatedAt
		stats, err := d.runtime.ContainerStats(ctx, id)
		must(t, err)
		if stats.Cpu.UsageNanoCores != nil && stats.Cpu.UsageNanoCores.Value > 64e9 {
			t.Errorf("%d nanocores", stats.Cpu.UsageNanoCores.Value)
		}
		// The one before stays in sight, as kubelet keeps it.
		must(t, d.runtime.StopContainer(ctx, id, 0))
		must(t, d.runtime.RemoveContainer(ctx, stubborn))
	}
	for _, event := range events() {
		if event.CreatedAt < lastEvent {
			t.Errorf("an event of before the last one: %v", event)
		}
		lastEvent = event.CreatedAt
	}
	if lastEvent == 0 {
		t.Error("no events")
	}
	// The same pod once more, an hour ago: it is the later one.
	before, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
	must(t, err)
	set(-5 * year)
	must(t, d.runtime.StopPodSandbox(ctx, p.id))
	p.config.Metadata.Attempt++
	again, err := d.runtime.RunPodSandbox(ctx, p.config, "")
	must(t, err)
	after, err := d.runtime.PodSandboxStatus(ctx, again, false)
	must(t, err)
	if after.Status.CreatedAt <= before.Status.CreatedAt {
		t.Errorf("a later sandbox seems older: %d after %d", after.Status.CreatedAt, before.Status.CreatedAt)
	}
	// Found again at another time, and ended by a signal while the clock is set.
	set(3 * year)
	d.kill()
	d.start()
	equal(t, d.podState(again), runtimeapi.PodSandboxState_SANDBOX_READY, "the pod after a restart")
	took(t, "SIGTERM", 0, func() { set(-year) }, d.stop)
	d.start()
}

func (d *Daemon) podState(id string) runtimeapi.PodSandboxState {
	d.t.Helper()
	answer, err := d.runtime.PodSandboxStatus(ctx, id, false)
	must(d.t, err)
	return answer.Status.State
}

// listenEvents collects events until the returned function is called, which returns them.
func (d *Daemon) listenEvents() func() []*runtimeapi.ContainerEventResponse {
	d.t.Helper()
	channel := make(chan *runtimeapi.ContainerEventResponse, 1000)
	ready := make(chan struct{})
	go d.runtime.GetContainerEvents(ctx, channel, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(ready) })
	<-ready
	return func() []*runtimeapi.ContainerEventResponse {
		var all []*runtimeapi.ContainerEventResponse
		for {
			select {
			case event := <-channel:
				all = append(all, event)
			default:
				return all
			}
		}
	}
}
