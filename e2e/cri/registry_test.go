package cri

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// One plain-HTTP registry on this network namespace's loopback serves all tests.
const registryAddress = "127.0.0.1:5000"

var (
	registryPid int
	registryDir string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if scratchDir == "" || rootDir == "" {
			fmt.Println("run by e2e/cri/run.py, which makes namespaces and a scratch directory")
			return 1
		}
		// The client logs every error that it returns; the tests judge those themselves.
		klog.SetLogger(logr.Discard())
		stop, err := startRegistry()
		if err != nil {
			fmt.Println("registry:", err)
			return 1
		}
		defer stop()
		return m.Run()
	}())
}

func startRegistry() (func(), error) {
	var err error
	if registryDir, err = os.MkdirTemp(scratchDir, "r"); err != nil {
		return nil, err
	}
	config := filepath.Join(registryDir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", registryDir, registryAddress)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	command := exec.Command(registryBin, "serve", config)
	if err := command.Start(); err != nil {
		return nil, err
	}
	registryPid = command.Process.Pid
	stop := func() { command.Process.Kill(); command.Wait(); os.RemoveAll(registryDir) }
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if peer, err := net.Dial("tcp", registryAddress); err == nil {
			peer.Close()
			break
		} else if time.Now().After(deadline) {
			stop()
			return nil, err
		}
	}
	for _, name := range []string{"busybox", "pause"} {
		out, err := exec.Command(filepath.Join(rootDir, "e2e/images/mkimage.py"), "push", name, registryAddress+"/test/"+name+":1").CombinedOutput()
		if err != nil {
			stop()
			return nil, fmt.Errorf("push: %w: %s", err, out)
		}
	}
	return stop, nil
}

// busyboxImage is in the registry from the start.
const busyboxImage = registryAddress + "/test/busybox:1"

// push puts one of mkimage.py's images into the registry and returns its reference.
func push(t *testing.T, name, repository string) string {
	t.Helper()
	reference := registryAddress + "/" + repository + ":1"
	mkimage(t, "push", name, reference)
	return reference
}

// lastLayer finds the registry's own file of an image's last layer.
func lastLayer(t *testing.T, repository string) string {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+registryAddress+"/v2/"+repository+"/manifests/1", nil)
	must(t, err)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	must(t, err)
	var manifest struct {
		Layers []struct{ Digest string }
	}
	must(t, json.Unmarshal(data, &manifest))
	hash := strings.TrimPrefix(manifest.Layers[len(manifest.Layers)-1].Digest, "sha256:")
	return filepath.Join(registryDir, "docker/registry/v2/blobs/sha256", hash[:2], hash, "data")
}

// spoil changes a blob in the registry behind its digest until the test ends.
func spoil(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(append([]byte(nil), good...)), 0o644))
	t.Cleanup(func() { os.WriteFile(path, good, 0o644) })
}
