package cri

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func imageStatus(d *Daemon, reference string) *runtimeapi.Image {
	d.t.Helper()
	answer, err := d.images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: reference}, false)
	must(d.t, err)
	return answer.Image
}

func imageCount(d *Daemon) int {
	d.t.Helper()
	found, err := d.images.ListImages(ctx, nil)
	must(d.t, err)
	count := 0
	for _, image := range found {
		for _, tag := range append(image.RepoTags, image.RepoDigests...) {
			if !strings.Contains(tag, "/test/pause") { // the reference's own
				count++
				break
			}
		}
	}
	return count
}

func TestPullListAndRemove(t *testing.T) {
	d := startDaemon(t)
	if imageStatus(d, busyboxImage) != nil {
		t.Fatal("an image that was never pulled is there")
	}
	reference := pull(d, busyboxImage)
	image := imageStatus(d, busyboxImage)
	if image == nil {
		t.Fatal("a pulled image is not there")
	}
	equal(t, imageCount(d), 1, "images")
	equal(t, len(image.RepoTags), 1, "tags")
	equal(t, image.RepoTags[0], busyboxImage, "tag")
	if len(image.RepoDigests) != 1 || !strings.HasPrefix(image.RepoDigests[0], registryAddress+"/test/busybox@sha256:") {
		t.Errorf("digests %v", image.RepoDigests)
	}
	if image.Size == 0 {
		t.Error("no size")
	}
	for _, name := range []string{reference, image.Id, image.RepoDigests[0]} {
		if found := imageStatus(d, name); found == nil || found.Id != image.Id {
			t.Errorf("not found as %s", name)
		}
	}
	equal(t, pull(d, busyboxImage), reference, "a second pull")
	equal(t, pull(d, image.RepoDigests[0]), reference, "a pull by digest")
	equal(t, imageCount(d), 1, "images after all pulls")
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
	if imageStatus(d, image.Id) != nil {
		t.Error("a removed image is there")
	}
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}))
}

func TestUserOfAnImage(t *testing.T) {
	d := startDaemon(t)
	reference := push(t, "user", "test/user")
	pull(d, reference)
	equal(t, imageStatus(d, reference).Username, "www-data", "user name")
	p := newPod(d)
	id, log := p.start("", func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = reference
		c.Command = nil // the image's entrypoint and command
	})
	p.exited(id)
	equal(t, stdoutOf(t, log), "www-data /var/www yes\n", "output")
}

func TestImageFsInfo(t *testing.T) {
	d := startDaemon(t)
	before, err := d.images.ImageFsInfo(ctx)
	must(t, err)
	pull(d, busyboxImage)
	var used uint64
	waitFor(t, 30*time.Second, func() bool {
		after, err := d.images.ImageFsInfo(ctx)
		must(t, err)
		used = after.ImageFilesystems[0].UsedBytes.GetValue()
		return used > before.ImageFilesystems[0].UsedBytes.GetValue()+1000000
	}, func() string { return "an image's bytes are counted" })
	if before.ImageFilesystems[0].FsId.GetMountpoint() == "" {
		t.Error("no mount point")
	}
}

func TestLayers(t *testing.T) {
	d := startDaemon(t)
	look := func(name, script string) string {
		reference := push(t, name, "test/"+name)
		pull(d, reference)
		p := newPod(d)
		_, out := p.run(script, func(c *runtimeapi.ContainerConfig) { c.Image.Image = reference })
		return out
	}
	equal(t, look("whiteouts", "ls -d gone dir/* tree 2>/dev/null; cat back"), "dir/three\nnew\n", "whiteouts")
	equal(t, look("hard-links", "cat one two sub/three four; stat -c '%a %u' two four; [ one -ef four ] && echo same; [ $(stat -c %h one) -ge 4 ] && echo four"),
		"same\nsame\nsame\nsame\n640 33\n640 33\nsame\nfour\n", "hard links; the count may have the image store's own names in it")
	equal(t, look("merged-usr", "cat /usr/lib/old /usr/lib/new /lib/sub/leaf; readlink /lib; stat -c %a /usr/lib"),
		"old\nnew\nleaf\nusr/lib\n750\n", "a layer that writes through a link of the one below")
	equal(t, look("plain-layers", "echo runs"), "runs\n", "layers without compression")
	equal(t, look("special-files", "stat -c %a setuid; stat -c %F pipe"), "4755\nfifo\n", "special files")
}

func TestPullErrors(t *testing.T) {
	d := startDaemon(t)
	for reference, words := range map[string][]string{
		registryAddress + "/test/no-such-repository:1":                      {"test/no-such-repository"},
		registryAddress + "/test/busybox:no-such-tag":                       {"no-such-tag"},
		registryAddress + "/test/busybox@sha256:" + strings.Repeat("0", 64): {strings.Repeat("0", 64)},
		"127.0.0.1:9/nobody/listens:1":                                      {"127.0.0.1:9"},
		registryAddress + "/UPPER/../case:1":                                {"UPPER"},
		"":                                                                  nil,
	} {
		_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil)
		if err == nil {
			t.Errorf("%q was pulled", reference)
			continue
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q: the error does not name %q: %v", reference, word, err)
			}
		}
	}
	equal(t, imageCount(d), 0, "images")
}

// blobsOf lists the files below a daemon's image store, to see that a refused image leaves none.
func sizeBelow(path string) (total int64) {
	filepath.WalkDir(path, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

func TestSpoiledLayers(t *testing.T) {
	d := startDaemon(t)
	for name, change := range map[string]func([]byte) []byte{
		"wrong digest": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"truncated":    func(data []byte) []byte { return data[:len(data)/2] },
		"too long":     func(data []byte) []byte { return append(data, make([]byte, 100000)...) },
		"empty":        func([]byte) []byte { return nil },
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			reference := push(t, "hard-links", "spoiled/"+strings.ReplaceAll(name, " ", "-"))
			layer := lastLayer(t, strings.TrimSuffix(strings.TrimPrefix(reference, registryAddress+"/"), ":1"))
			spoil(t, layer, change)
			_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil)
			if err == nil {
				t.Fatal("was pulled")
			}
			t.Logf("refused: %v", err)
			if hash := filepath.Base(filepath.Dir(layer)); !strings.Contains(err.Error(), hash) && !isReference() {
				t.Errorf("the error does not name the layer %s: %v", hash, err)
			}
			if imageStatus(d, reference) != nil {
				t.Error("the image is there")
			}
		})
	}
	// The same image, whole again, can be pulled: nothing of the bad ones was kept.
	pull(d, push(t, "hard-links", "test/whole"))
}

func TestHostileLayers(t *testing.T) {
	const escaped, victim = "/tmp/moat-escaped", "/tmp/moat-victim"
	d := startDaemon(t)
	for _, name := range []string{"traversal", "traversal-inside", "symlink-absolute", "symlink-relative", "symlink-final", "hard-link-outside",
		"hard-link-through-symlink", "whiteout-traversal", "whiteout-through-symlink", "truncated-tar", "wrong-diff-id", "not-gzip"} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile(victim, []byte("here"), 0o644))
			defer os.Remove(victim)
			defer os.Remove(escaped)
			reference := push(t, name, "hostile/"+name)
			_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil)
			t.Logf("%v", err)
			if _, found := os.Lstat(escaped); found == nil {
				t.Error("a layer wrote outside its root")
			}
			if _, found := os.Lstat(victim); found != nil {
				t.Error("a layer removed a file outside its root")
			}
			switch name {
			case "truncated-tar", "wrong-diff-id", "not-gzip":
				if err == nil {
					t.Error("was pulled")
				}
			case "hard-link-outside", "hard-link-through-symlink":
				if err != nil {
					break // refused: as good
				}
				p := newPod(d)
				_, out := p.run("cat /stolen", func(c *runtimeapi.ContainerConfig) { c.Image.Image = reference })
				host, _ := os.ReadFile("/etc/hostname")
				passwd, _ := os.ReadFile("/etc/passwd")
				if out == string(host) || out == string(passwd) {
					t.Errorf("the host's file is in the image: %q", out)
				}
			}
			if err != nil && imageStatus(d, reference) != nil {
				t.Error("a refused image is there")
			}
		})
	}
	must(t, os.MkdirAll("/tmp", 0o1777))
	p := newPod(d)
	_, out := p.run("echo fine")
	equal(t, out, "fine\n", "a good image afterwards")
}

func TestAFullDiskIsAnErrorAndNoMore(t *testing.T) {
	dir, err := os.MkdirTemp(scratchDir, "f")
	must(t, err)
	lib := filepath.Join(dir, "lib")
	must(t, os.Mkdir(lib, 0o755))
	must(t, syscall.Mount("tmpfs", lib, "tmpfs", 0, "size=1200k"))
	defer syscall.Unmount(lib, syscall.MNT_DETACH)
	moatOnly(t, "it does not start on so small a disk")
	t.Run("pull", func(t *testing.T) {
		d := startDaemonIn(t, dir)
		_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "space") && !strings.Contains(err.Error(), "ENOSPC") {
			t.Errorf("the error does not say that the disk is full: %v", err)
		}
		equal(t, imageCount(d), 0, "images")
		must(t, syscall.Mount("tmpfs", lib, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
		pull(d, busyboxImage)
		_, out := newPod(d).run("echo fine")
		equal(t, out, "fine\n", "with room again")
	})
}
