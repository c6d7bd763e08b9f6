package cri

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func imageMount(path, image, subPath string) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: path, Readonly: true, ImageSubPath: subPath,
			Image: &runtimeapi.ImageSpec{Image: image}})
	}
}

func TestImageVolumes(t *testing.T) {
	moatOnly(t, "its snapshotter here has no image volumes")
	d := startDaemon(t)
	volume := push(t, "hard-links", "test/volume")
	pull(d, volume)
	p := newPod(d)
	status, out := p.run("cat /v/one /s/three; touch /v/new 2>&1 | sed 's/.*: //'",
		imageMount("/v", volume, ""), imageMount("/s", volume, "sub"))
	equal(t, out, "same\nsame\nRead-only file system\n", "output")
	image := imageStatus(d, volume)
	equal(t, status.Mounts[0].GetImage().GetImage(), volume, "the mount's image")
	equal(t, status.Mounts[0].GetImage().GetImageRef(), image.Id, "the mount's image_ref")

	create := func(change func(*runtimeapi.ContainerConfig)) error {
		config := p.containerConfig("true")
		change(config)
		_, err := d.runtime.CreateContainer(ctx, p.id, config, p.config)
		return err
	}
	failsWith(t, create(imageMount("/v", "nobody.example/has:this", "")), codes.NotFound, "nobody.example/has:this")
	failsWith(t, create(imageMount("/v", volume, "no/such")), codes.InvalidArgument, "no/such", volume)
	failsWith(t, create(imageMount("/v", volume, "../x")), codes.InvalidArgument, "../x")
	failsWith(t, create(func(c *runtimeapi.ContainerConfig) {
		imageMount("/v", volume, "")(c)
		c.Mounts[0].Readonly = false
	}), codes.InvalidArgument, "readonly")

	// The image is removed: who has it as a volume keeps it, also over a restart, and nobody else.
	id, log := p.start("until [ -e /go ]; do sleep 0.05; done; cat /v/one", imageMount("/v", volume, ""))
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: volume}))
	d.kill()
	d.start()
	if imageStatus(d, volume) != nil {
		t.Error("a removed image is there")
	}
	_, _, err := d.runtime.ExecSync(ctx, id, []string{"touch", "/go"}, 30*time.Second)
	must(t, err)
	p.exited(id)
	equal(t, stdoutOf(t, log), "same\n", "the volume's file after the image was removed")
	roots := entries(t, d, "roots")
	must(t, d.runtime.RemovePodSandbox(ctx, p.id))
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
	if left := entries(t, d, "roots"); left >= roots {
		t.Errorf("%d of %d roots are left", left, roots)
	}
}

func moatImage(t *testing.T, d *Daemon, arguments ...string) string {
	t.Helper()
	command := exec.Command(filepath.Join(buildDir, "moat"), append([]string{"image", "--root", filepath.Join(d.dir, "lib"),
		"--registry-config-dir", filepath.Join(d.dir, "certs.d")}, arguments...)...)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("moat image %v: %v: %s", arguments, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestImageCommandsAndPinnedImages(t *testing.T) {
	moatOnly(t, "these are moat's commands")
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	d := startDaemonIn(t, dir, "--pinned-image", "moat.test/pinned:1")
	lines := strings.Split(moatImage(t, d, "pull", busyboxImage), "\n")
	id := lines[len(lines)-1]
	equal(t, imageStatus(d, busyboxImage).GetId(), id, "what the command pulled")
	equal(t, imageStatus(d, busyboxImage).Pinned, false, "pinned")
	moatImage(t, d, "tag", busyboxImage, "moat.test/pinned:1")
	equal(t, imageStatus(d, id).Pinned, true, "pinned by its new name")
	equal(t, len(imageStatus(d, id).RepoTags), 2, "tags")
	other := push(t, "hard-links", "test/other")
	pull(d, other)
	p := newPod(d)
	container, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) { c.Image.Image = other })
	moatImage(t, d, "prune", "--pinned-image", "moat.test/pinned:1")
	if imageStatus(d, id) == nil || imageStatus(d, other) == nil {
		t.Error("a pinned image, or one in use, was pruned")
	}
	must(t, d.runtime.RemoveContainer(ctx, container))
	moatImage(t, d, "prune", "--pinned-image", "moat.test/pinned:1")
	if imageStatus(d, other) != nil {
		t.Error("an image that nobody has was not pruned")
	}
	if list := moatImage(t, d, "list"); !strings.Contains(list, "moat.test/pinned:1") {
		t.Errorf("list: %s", list)
	}
	moatImage(t, d, "remove", "moat.test/pinned:1")
	equal(t, imageCount(d), 0, "images after the removal")
}

// Pulls, removals and containers of the same image at once: whoever has a container can run it.
func TestImagesAreRemovedWhileTheyArePulledAndUsed(t *testing.T) {
	d := startDaemon(t)
	reference := push(t, "hard-links", "test/contested")
	p := newPod(d)
	stop := make(chan bool)
	var group sync.WaitGroup
	for range 2 {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond): // a pace, so that creations get between
					d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: reference})
				}
			}
		}()
	}
	ran := 0
	for i := 0; i < 100 && ran < 3; i++ {
		if _, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil); err != nil {
			t.Errorf("pull: %v", err)
			break
		}
		config := p.containerConfig("cat /one")
		config.Metadata.Name = fmt.Sprint("c", i)
		config.LogPath = config.Metadata.Name + ".log"
		config.Image.Image = reference
		id, err := d.runtime.CreateContainer(ctx, p.id, config, p.config)
		if err != nil {
			continue // the image was gone again
		}
		must(t, d.runtime.StartContainer(ctx, id))
		equal(t, p.exited(id).ExitCode, 0, "exit code")
		must(t, d.runtime.RemoveContainer(ctx, id))
		ran++
	}
	close(stop)
	group.Wait()
	if ran == 0 {
		t.Error("no container was created between a pull and a removal")
	}
}
