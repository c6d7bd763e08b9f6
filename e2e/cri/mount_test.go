package cri

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mountTmpfs mounts an empty tmpfs that is gone again when the test ends.
func mountTmpfs(t *testing.T, at string) {
	t.Helper()
	must(t, os.MkdirAll(at, 0o755))
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
}

func TestReadOnlyMounts(t *testing.T) {
	p := newPod(startDaemon(t))
	volume := filepath.Join(p.dir, "volume")
	mountTmpfs(t, filepath.Join(volume, "below"))
	script := "touch /v/file 2>/dev/null && echo top; touch /v/below/file 2>/dev/null && echo below; true"
	for _, c := range []struct {
		mount *runtimeapi.Mount
		wrote string
	}{
		{&runtimeapi.Mount{}, "top\nbelow\n"},
		{&runtimeapi.Mount{Readonly: true}, "below\n"},
		{&runtimeapi.Mount{Readonly: true, RecursiveReadOnly: true}, ""},
	} {
		_, out := p.run(script, func(config *runtimeapi.ContainerConfig) {
			c.mount.ContainerPath, c.mount.HostPath = "/v", volume
			config.Mounts = []*runtimeapi.Mount{c.mount}
		})
		equal(t, out, c.wrote, c.mount.String())
	}
}

func TestMountOptions(t *testing.T) {
	p := newPod(startDaemon(t))
	volume := filepath.Join(p.dir, "volume")
	must(t, os.Mkdir(volume, 0o755))
	must(t, os.WriteFile(filepath.Join(volume, "program"), []byte("#!/bin/sh\necho ran\n"), 0o755))
	for _, c := range []struct {
		options []string
		out     string
	}{{nil, "ran\n"}, {[]string{"noexec", "nosuid", "nodev"}, "refused\n"}} {
		_, out := p.run("/v/program 2>/dev/null || echo refused", func(config *runtimeapi.ContainerConfig) {
			config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: volume, MountOptions: c.options}}
		})
		equal(t, out, c.out, "a program on the volume")
	}
}

func TestAMountOfTheHostAppears(t *testing.T) {
	p := newPod(startDaemon(t))
	volume := filepath.Join(p.dir, "volume")
	// Shared, as kubelet's directories are.
	must(t, os.Mkdir(volume, 0o755))
	must(t, unix.Mount(volume, volume, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(volume, unix.MNT_DETACH) })
	must(t, unix.Mount("", volume, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(filepath.Join(volume, "later"), 0o755))
	for _, c := range []struct {
		propagation runtimeapi.MountPropagation
		out         string
	}{{runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "there\n"}, {runtimeapi.MountPropagation_PROPAGATION_PRIVATE, "empty\n"}} {
		t.Run(c.propagation.String(), func(t *testing.T) {
			id, log := p.start("ls -A /v/later; echo ready; until [ -e /v/go ]; do usleep 10000; done; [ -e /v/later/there ] && echo there || echo empty",
				func(config *runtimeapi.ContainerConfig) {
					config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: volume, Propagation: c.propagation}}
				})
			waitForOutput(t, log, "ready")
			later := filepath.Join(volume, "later")
			mountTmpfs(t, later)
			must(t, os.WriteFile(filepath.Join(later, "there"), nil, 0o644))
			must(t, os.WriteFile(filepath.Join(volume, "go"), nil, 0o644))
			p.exited(id)
			equal(t, stdoutOf(t, log), "ready\n"+c.out, "what the container sees")
			must(t, os.Remove(filepath.Join(volume, "go")))
		})
	}
}

func TestMountsThatAreRefused(t *testing.T) {
	moatOnly(t, "the words are moat's")
	p := newPod(startDaemon(t))
	for _, c := range []struct {
		mount *runtimeapi.Mount
		code  codes.Code
		words []string
	}{
		{&runtimeapi.Mount{RecursiveReadOnly: true}, codes.InvalidArgument, []string{"/v", "recursive_read_only", "readonly"}},
		{&runtimeapi.Mount{Readonly: true, RecursiveReadOnly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
			codes.InvalidArgument, []string{"/v", "recursive_read_only", "PROPAGATION_HOST_TO_CONTAINER"}},
		{&runtimeapi.Mount{Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}, codes.Unimplemented, []string{"/v", "native"}},
		{&runtimeapi.Mount{MountOptions: []string{"exec=maybe"}}, codes.InvalidArgument, []string{"/v", "exec=maybe"}},
	} {
		config := p.containerConfig("true")
		c.mount.ContainerPath, c.mount.HostPath = "/v", p.dir
		config.Mounts = []*runtimeapi.Mount{c.mount}
		_, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
		failsWith(t, err, c.code, c.words...)
	}
}

// Images send their logs to /dev/stdout, whether or not anybody keeps one.
func TestStandardStreamsCanBeOpenedAgain(t *testing.T) {
	p := newPod(startDaemon(t))
	for _, keep := range []bool{true, false} {
		id, _ := p.start("echo out >>/dev/stdout && echo err >/dev/stderr", func(config *runtimeapi.ContainerConfig) {
			if !keep {
				config.LogPath = ""
			}
		})
		equal(t, p.exited(id).ExitCode, 0, "exit code")
	}
}
