package cri

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// From a registry into an archive, and from there onto another node, where it runs.
func TestSavedImagesRunElsewhere(t *testing.T) {
	moatOnly(t, "these are moat's commands")
	d := startDaemon(t)
	pull(d, busyboxImage)
	other := push(t, "hard-links", "test/other")
	pull(d, other)
	archive := filepath.Join(d.dir, "saved.tar")
	moatImage(t, d, "save", "-o", archive, busyboxImage, other)
	again := filepath.Join(d.dir, "again.tar")
	moatImage(t, d, "save", "--output", again, other, busyboxImage)
	first, err := os.ReadFile(archive)
	must(t, err)
	second, err := os.ReadFile(again)
	must(t, err)
	equal(t, len(first), len(second), "the size of the same images in another order")

	elsewhere := startDaemon(t)
	out := moatImage(t, elsewhere, "load", archive)
	for _, name := range []string{busyboxImage, other} {
		if !strings.Contains(out, name) || imageStatus(elsewhere, name) == nil {
			t.Errorf("%s is not there: %s", name, out)
		}
	}
	config := podConfig(elsewhere)
	id, err := elsewhere.runtime.RunPodSandbox(ctx, config, "")
	must(t, err)
	p := &Pod{Daemon: elsewhere, id: id, config: config}
	_, said := p.run("echo from an archive")
	equal(t, said, "from an archive\n", "a container of a loaded image")
	// Saved there it is what was loaded.
	third := filepath.Join(d.dir, "third.tar")
	moatImage(t, elsewhere, "save", "-o", third, busyboxImage, other)
	loaded, err := os.ReadFile(third)
	must(t, err)
	if !bytes.Equal(loaded, first) {
		t.Error("an image that was loaded from an archive is saved as another one")
	}
	must(t, elsewhere.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: other}))
}
