package cri

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// counting prints 0, 1, 2, ... every few milliseconds.
const counting = "i=0; while :; do echo $i; i=$((i + 1)); usleep 3000; done"

func lastNumber(t *testing.T, log string) int {
	t.Helper()
	words := strings.Fields(stdoutOf(t, log))
	if len(words) == 0 {
		return -1
	}
	number, err := strconv.Atoi(words[len(words)-1])
	must(t, err)
	return number
}

func waitForNumber(t *testing.T, log string, wanted int) {
	t.Helper()
	waitFor(t, 30*time.Second, func() bool { return lastNumber(t, log) >= wanted },
		func() string { return fmt.Sprintf("the guest counts to %d; it is at %d", wanted, lastNumber(t, log)) })
}

func TestPodsOutliveAKilledDaemon(t *testing.T) { eachHandler(t, testPodsOutliveAKilledDaemon) }

func testPodsOutliveAKilledDaemon(t *testing.T) {
	moatOnly(t, "its logs are written by the daemon itself")
	d := startDaemon(t)
	p := newPod(d)
	counter, log := p.start(counting)
	idle, _ := p.start("sleep 1000")
	done, _ := p.start("exit 6")
	p.exited(done)
	created, _ := p.create("echo later")
	ends, _ := p.start("while [ ! -e /go ]; do usleep 1000; done; exit 9")
	_, _, err := d.runtime.ExecSync(ctx, ends, []string{"/bin/sh", "-c", "(usleep 400000; touch /go) >/dev/null 2>&1 &"}, 0)
	must(t, err)
	address := func() string {
		state, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
		must(t, err)
		equal(t, state.Status.State, runtimeapi.PodSandboxState_SANDBOX_READY, "pod state")
		return state.Status.Network.GetIp()
	}
	ip := address()
	waitForNumber(t, log, 20)
	d.kill()
	at := lastNumber(t, log)
	waitForNumber(t, log, at+200) // nobody is there, and the guest writes on
	d.start()

	equal(t, address(), ip, "the pod's address")
	equal(t, d.status(counter).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the counter")
	equal(t, d.status(idle).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "the idle one")
	equal(t, d.status(created).State, runtimeapi.ContainerState_CONTAINER_CREATED, "the created one")
	equal(t, d.status(done).ExitCode, 6, "exit code from before")
	equal(t, d.exited(ends).ExitCode, 9, "exit code of what ended while nobody was there")
	equal(t, d.status(counter).Image.GetImage(), busyboxImage, "image")
	stdout, _, err := d.runtime.ExecSync(ctx, idle, []string{"/bin/echo", "still there"}, 0)
	must(t, err)
	equal(t, string(stdout), "still there\n", "exec")
	must(t, d.runtime.StartContainer(ctx, created))
	d.exited(created)
	if imageStatus(d, busyboxImage) == nil {
		t.Error("the image is gone")
	}
	at = lastNumber(t, log)
	waitForNumber(t, log, at+20)
	must(t, d.runtime.StopContainer(ctx, counter, 0))
	for i, word := range strings.Fields(stdoutOf(t, log)) {
		if word != strconv.Itoa(i) {
			t.Fatalf("the log is broken: line %d says %s", i, word)
		}
	}
}

func TestLogsReopenAfterARestart(t *testing.T) { eachHandler(t, testLogsReopenAfterARestart) }

func testLogsReopenAfterARestart(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, log := p.start(counting)
	waitForNumber(t, log, 10)
	d.kill()
	d.start()
	must(t, os.Rename(log, log+".1"))
	must(t, d.runtime.ReopenContainerLog(ctx, id))
	waitFor(t, 10*time.Second, func() bool { return lastNumber(t, log) > 0 }, func() string { return "the new log is written" })
	must(t, d.runtime.StopContainer(ctx, id, 0))
	for i, word := range strings.Fields(stdoutOf(t, log+".1") + stdoutOf(t, log)) {
		if word != strconv.Itoa(i) {
			t.Fatalf("line %d says %s", i, word)
		}
	}
}

func TestAPoliteStopLeavesThePods(t *testing.T) { eachHandler(t, testAPoliteStopLeavesThePods) }

func testAPoliteStopLeavesThePods(t *testing.T) {
	moatOnly(t, "its logs are written by the daemon itself")
	d := startDaemon(t)
	p := newPod(d)
	id, log := p.start(counting)
	waitForNumber(t, log, 10)
	d.stop()
	at := lastNumber(t, log)
	waitForNumber(t, log, at+50)
	d.start()
	equal(t, d.status(id).State, runtimeapi.ContainerState_CONTAINER_RUNNING, "state")
}

// Kills the daemon at random moments of a pod's life; whatever it then knows can be removed, and nothing leaks.
func TestKilledAtAnyMoment(t *testing.T) { eachHandler(t, testKilledAtAnyMoment) }

func testKilledAtAnyMoment(t *testing.T) {
	moatOnly(t, "its leaks are not ours to count")
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewSource(seed))
	d := startDaemon(t)
	pull(d, busyboxImage)
	for round := range 8 {
		config := podConfig(d)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			id, err := d.runtime.RunPodSandbox(ctx, config, "")
			if err != nil {
				return
			}
			container, err := d.runtime.CreateContainer(ctx, id, &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: busyboxImage},
				Command: []string{"/bin/sh", "-c", "echo up; sleep 1000"}, LogPath: "c.log", Linux: &runtimeapi.LinuxContainerConfig{}}, config)
			if err != nil || d.runtime.StartContainer(ctx, container) != nil {
				return
			}
			d.runtime.StopContainer(ctx, container, 0)
			d.runtime.StopPodSandbox(ctx, id)
			d.runtime.RemovePodSandbox(ctx, id)
		}()
		time.Sleep(time.Duration(moments.Intn(250)) * time.Millisecond)
		d.command.Process.Kill()
		d.command.Wait()
		<-stopped
		d.disconnect()
		d.start()
		containers, err := d.runtime.ListContainers(ctx, nil)
		must(t, err)
		for _, container := range containers {
			if container.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
				t.Errorf("round %d: container %s is in an unknown state", round, container.Id)
			}
		}
		pods, err := d.runtime.ListPodSandbox(ctx, nil)
		must(t, err)
		for _, pod := range pods {
			must(t, d.runtime.StopPodSandbox(ctx, pod.Id))
			must(t, d.runtime.RemovePodSandbox(ctx, pod.Id))
		}
		// The same name can be used again: nothing of the half-made pod blocks it.
		id, err := d.runtime.RunPodSandbox(ctx, config, "")
		must(t, err)
		must(t, d.runtime.StopPodSandbox(ctx, id))
		must(t, d.runtime.RemovePodSandbox(ctx, id))
	}
}

func TestAKilledPullLeavesNothing(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewSource(seed))
	d := startDaemon(t)
	for range 4 {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}, nil, nil)
		}()
		time.Sleep(time.Duration(moments.Intn(60)) * time.Millisecond)
		d.command.Process.Kill()
		d.command.Wait()
		<-stopped
		d.disconnect()
		d.start()
		// There, whole, or not there.
		if imageStatus(d, busyboxImage) != nil {
			_, out := newPod(d).run("echo whole")
			equal(t, out, "whole\n", "output")
			must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
		}
	}
	pull(d, busyboxImage)
}

func TestADeadSentryIsNoticed(t *testing.T) {
	moatOnly(t, "no sentry")
	d := startDaemon(t)
	old := pidsOf("moat-sentry")
	p := newPod(d)
	id, log := p.start("echo up; sleep 1000")
	waitForOutput(t, log, "up")
	for pid := range pidsOf("moat-sentry") {
		if !old[pid] {
			killPid(pid)
		}
	}
	end := d.exited(id)
	if end.ExitCode == 0 {
		t.Error("a container whose kernel was killed has exit code 0")
	}
	waitFor(t, 20*time.Second, func() bool {
		state, err := d.runtime.PodSandboxStatus(ctx, p.id, false)
		must(t, err)
		return state.Status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}, func() string { return "the pod is not ready" })
	if _, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/true"}, 0); err == nil {
		t.Error("exec in a dead pod")
	}
	// The rest of the node goes on.
	_, out := newPod(d).run("echo fine")
	equal(t, out, "fine\n", "another pod")
}
