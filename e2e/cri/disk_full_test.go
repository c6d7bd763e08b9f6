package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// disk is a small file system that a test fills.
type disk struct {
	t      *testing.T
	path   string
	filler string
}

func newDisk(t *testing.T, path string, megabytes int) *disk {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	must(t, unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)))
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	return &disk{t, path, filepath.Join(path, "filler")}
}

// fill takes all of it but `pages` pages of 4 KiB.
func (d *disk) fill(pages int) {
	d.t.Helper()
	file, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY, 0o600)
	must(d.t, err)
	defer file.Close()
	var room unix.Statfs_t
	must(d.t, unix.Fstatfs(int(file.Fd()), &room))
	info, err := file.Stat()
	must(d.t, err)
	size := info.Size() + int64(room.Bavail)*room.Bsize
	for ; size > 0 && unix.Fallocate(int(file.Fd()), 0, 0, size) != nil; size -= 4096 {
	}
	must(d.t, file.Truncate(max(0, size-int64(pages)*4096)))
}

func (d *disk) free() { os.Remove(d.filler) }

func isFull(err error) bool { return status.Code(err) == codes.ResourceExhausted }

// saysFull wants an error for the person on call: that it is the disk, what was being done and to which file.
func saysFull(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if !isFull(err) {
		t.Errorf("%s on a full disk: code %v: %v", what, status.Code(err), err)
		return
	}
	text := strings.ToLower(err.Error())
	if !strings.Contains(text, "no space left on device") && !strings.Contains(text, "is full") {
		t.Errorf("%s on a full disk does not say so: %v", what, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s on a full disk does not name %q: %v", what, word, err)
		}
	}
}

// Each call of a pod's life, with from no room to a little: it says that the disk is full and leaves nothing, or does
// what it was asked. What ends things is done on a full disk too, since nothing else gives room back.
func TestAFullDiskAtEachStep(t *testing.T) {
	moatOnly(t, "it needs its root on the disk")
	eachHandler(t, func(t *testing.T) {
		for _, place := range []string{"lib", "run", "logs"} {
			t.Run(place, func(t *testing.T) {
				dir, err := os.MkdirTemp(scratchDir, "f")
				must(t, err)
				disk := newDisk(t, filepath.Join(dir, place), 64)
				d := startDaemonIn(t, dir)
				pull(d, busyboxImage)
				base := d.directories()
				refused := map[string]int{}
				try := func(what string, call func() error, undo func()) {
					t.Helper()
					for _, pages := range []int{0, 1, 2, 3, 5, 8, 12, 20, 40} {
						disk.fill(pages)
						err := call()
						if err != nil {
							refused[what]++
							saysFull(t, what, err)
						} else {
							undo()
						}
						disk.free()
						// A write with room again: the reserve is there for the next one.
						must(t, d.runtime.UpdateRuntimeConfig(ctx, &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.213.0.0/16"}}))
						if t.Failed() {
							t.Fatalf("with %d pages left", pages)
						}
					}
				}
				config := podConfig(d)
				config.LogDirectory = filepath.Join(dir, "logs", "pod")
				var pod string
				try("RunPodSandbox", func() error {
					config.Metadata.Attempt++
					pod, err = d.runtime.RunPodSandbox(ctx, config, "")
					return err
				}, func() {
					must(t, d.runtime.StopPodSandbox(ctx, pod))
					must(t, d.runtime.RemovePodSandbox(ctx, pod))
				})
				equal(t, fmt.Sprint(d.directories()), fmt.Sprint(base), "what pods that were refused left")
				config.Metadata.Attempt++
				pod, err = d.runtime.RunPodSandbox(ctx, config, "")
				must(t, err)
				base = d.directories()
				var container string
				count := uint32(0)
				create := func() error {
					count++
					container, err = d.runtime.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
						Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: count}, Image: &runtimeapi.ImageSpec{Image: busyboxImage},
						Command: []string{"/bin/sh", "-c", "while :; do echo line; usleep 20000; done"},
						LogPath: fmt.Sprintf("c/%d.log", count), Linux: &runtimeapi.LinuxContainerConfig{}}, config)
					return err
				}
				try("CreateContainer", create, func() { must(t, d.runtime.RemoveContainer(ctx, container)) })
				equal(t, fmt.Sprint(d.directories()), fmt.Sprint(base), "what containers that were refused left")
				// One that is refused its start has ended, as with other errors of a start.
				for _, pages := range []int{0, 1, 2, 5, 10} {
					must(t, create())
					disk.fill(pages)
					if err := d.runtime.StartContainer(ctx, container); err != nil {
						refused["StartContainer"]++
						saysFull(t, "StartContainer", err)
					}
					must(t, d.runtime.RemoveContainer(ctx, container))
					disk.free()
				}
				disk.free()
				must(t, create())
				must(t, d.runtime.StartContainer(ctx, container))
				// The container goes on, whatever becomes of its log, and so does all that ends things.
				disk.fill(0)
				out, _, err := d.runtime.ExecSync(ctx, container, []string{"echo", "alive"}, 20*time.Second)
				if place == "run" && err != nil {
					saysFull(t, "ExecSync", err) // a native exec has a record there
				} else if err != nil || string(out) != "alive\n" {
					t.Errorf("ExecSync on a full disk: %q, %v", out, err)
				}
				must(t, d.runtime.StopContainer(ctx, container, 0))
				equal(t, d.status(container).ExitCode, 137, "the exit code of what ended on a full disk")
				must(t, d.runtime.RemoveContainer(ctx, container))
				must(t, d.runtime.StopPodSandbox(ctx, pod))
				must(t, d.runtime.RemovePodSandbox(ctx, pod))
				must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
				if place == "lib" {
					config.Metadata.Attempt++
					_, err = d.runtime.RunPodSandbox(ctx, config, "")
					saysFull(t, "RunPodSandbox without the reserve", err, "moatd.db", "removing things")
				}
				disk.free()
				t.Logf("refused: %v", refused)
				if place == "lib" && (refused["RunPodSandbox"] == 0 || refused["CreateContainer"] == 0) {
					t.Errorf("nothing was refused on a full disk: %v", refused)
				}
				// With room again all is as before, also for another moatd.
				must(t, aLife(d, podConfig(d)))
				disk.fill(0)
				d.stop()
				disk.free()
				d.start()
				must(t, aLife(d, podConfig(d)))
			})
		}
	})
}

// directories counts what is in the places where pods, containers and layers are.
func (d *Daemon) directories() map[string]int {
	found := map[string]int{}
	for _, kind := range []string{"lib/pods", "lib/containers", "run/moatd/netns", "lib/images/layers", "lib/images/roots", "lib/images/tmp", "run"} {
		entries, _ := os.ReadDir(filepath.Join(d.dir, kind))
		for _, entry := range entries {
			if entry.Name() != "filler" {
				found[kind]++
			}
		}
	}
	return found
}

func TestAPullOnAFullDisk(t *testing.T) {
	moatOnly(t, "it needs its root on the disk")
	dir, err := os.MkdirTemp(scratchDir, "f")
	must(t, err)
	disk := newDisk(t, filepath.Join(dir, "lib"), 64)
	d := startDaemonIn(t, dir)
	image := &runtimeapi.ImageSpec{Image: busyboxImage}
	base := d.directories()
	for _, pages := range []int{0, 4, 50, 100, 200, 250} {
		disk.fill(pages)
		_, err := d.images.PullImage(ctx, image, nil, nil)
		saysFull(t, "PullImage", err, busyboxImage)
		found, err := d.images.ListImages(ctx, nil)
		must(t, err)
		equal(t, len(found), 0, "images after a pull that found no room")
		// What is downloaded stays to be gone on with; nothing that is unpacked does.
		equal(t, fmt.Sprint(d.directories()), fmt.Sprint(base), "what the pull left")
		disk.free()
	}
	pull(d, busyboxImage)
	must(t, aLife(d, podConfig(d)))
}

// A guest meets the disk itself: on a volume of the node, and in a native container's own layer.
func TestGuestsMeetAFullDisk(t *testing.T) {
	eachHandler(t, func(t *testing.T) {
		p := newPod(startDaemon(t))
		disk := newDisk(t, filepath.Join(p.dir, "volume"), 8)
		script := "dd if=/dev/zero of=/v/big bs=64k 2>&1 | grep -o 'No space left.*'; echo rest > /v/more || echo refused; rm /v/big; i=0; until echo room > /v/after; do i=$((i+1)); [ $i = 100 ] && break; usleep 50000; done; cat /v/after; [ $i = 0 ] || echo after $i tries"
		_, out := p.run(script, func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: disk.path}}
		})
		if !strings.HasPrefix(out, "No space left on device\n") || !strings.HasSuffix(out, "room\n") {
			t.Errorf("on a volume that is full: %q", out)
		}
	})
}

// The log loses lines and no halves of lines; the container neither waits nor ends; with room again the log goes on.
func TestALogOnAFullDisk(t *testing.T) {
	moatOnly(t, "containerd's shim does the same")
	eachHandler(t, func(t *testing.T) {
		d := startDaemon(t)
		logs := newDisk(t, filepath.Join(d.dir, "small"), 1)
		p := newPod(d, func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = logs.path })
		id, log := p.start("i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i with some text to it; echo $i > /count; done; echo last")
		waitForOutput(t, log, "line 10 ")
		logs.fill(0)
		read := func() string {
			out, _, err := d.runtime.ExecSync(ctx, id, []string{"cat", "/count"}, 20*time.Second)
			must(t, err)
			return string(out)
		}
		size := func() int64 {
			info, err := os.Stat(log)
			must(t, err)
			return info.Size()
		}
		// The page that it has is written full; then the container goes on without its log.
		var before int64
		waitFor(t, 30*time.Second, func() bool {
			before = size()
			first := read()
			waitFor(t, 30*time.Second, func() bool { return read() != first }, func() string { return "the container stands still" })
			return size() == before
		}, func() string { return "the log still grows" })
		logs.free()
		waitFor(t, 30*time.Second, func() bool { return size() > before }, func() string { return "the log does not go on" })
		_, _, err := d.runtime.ExecSync(ctx, id, []string{"touch", "/stop"}, 20*time.Second)
		must(t, err)
		equal(t, p.exited(id).ExitCode, 0, "exit code")
		lines := readLog(t, log) // every one of them whole
		if len(lines) < 12 || lines[len(lines)-1].text != "last" {
			t.Errorf("the log ends with %v", lines[max(0, len(lines)-2):])
		}
	})
}
