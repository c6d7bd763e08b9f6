package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const cdiSpec = `cdiVersion: "0.6.0"
kind: vendor.com/net
containerEdits:
  env: [ "SHARED=yes" ]
devices:
  - name: zero
    containerEdits:
      env: [ "DEVICE=zero" ]
      deviceNodes: [ { path: /dev/vendor, hostPath: /dev/zero, permissions: r } ]
      mounts: [ { hostPath: "@DIR@", containerPath: /vendor, options: [ ro, bind ] } ]
  - name: plain
    containerEdits:
      env: [ "DEVICE=plain" ]
      deviceNodes: [ { path: /dev/null } ]
      mounts: [ { hostPath: "@DIR@", containerPath: /vendor, options: [ ro, bind ] } ]
`

// writeCdi puts specifications where the daemon looks for them, and what they mount beside them.
func writeCdi(t *testing.T, d *Daemon) {
	t.Helper()
	volume := filepath.Join(d.dir, "vendor")
	must(t, os.MkdirAll(filepath.Join(d.dir, "cdi"), 0o755))
	must(t, os.MkdirAll(volume, 0o755))
	must(t, os.WriteFile(filepath.Join(volume, "library"), []byte("library\n"), 0o644))
	text := []byte(strings.ReplaceAll(cdiSpec, "@DIR@", volume))
	must(t, os.WriteFile(filepath.Join(d.dir, "cdi", "vendor.yaml"), text, 0o644))
}

func byField(names ...string) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		for _, name := range names {
			c.CDIDevices = append(c.CDIDevices, &runtimeapi.CDIDevice{Name: name})
		}
	}
}

func byAnnotation(names string) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{"cdi.k8s.io/vendor": names}
	}
}

func TestCdiDevices(t *testing.T) {
	moatOnly(t, "it looks for them elsewhere")
	d := startDaemon(t)
	writeCdi(t, d)
	native := newPodBy(d, "native")
	script := "echo $SHARED $DEVICE; cat /vendor/library; test -c /dev/vendor && head -c 3 /dev/vendor | wc -c; touch /vendor/x 2>/dev/null || echo ro"
	for _, ask := range []func(*runtimeapi.ContainerConfig){byField("vendor.com/net=zero"), byAnnotation("vendor.com/net=zero")} {
		_, out := native.run(script, ask)
		equal(t, out, "yes zero\nlibrary\n3\nro\n", "a native container with the device")
	}
	_, out := native.run("echo $SHARED $DEVICE", byAnnotation("vendor.com/net=zero,vendor.com/net=plain"))
	equal(t, out, "yes plain\n", "two devices")

	sandboxed := newPod(d)
	_, out = sandboxed.run("echo $SHARED $DEVICE; cat /vendor/library; echo x > /dev/null && echo null", byField("vendor.com/net=plain"))
	equal(t, out, "yes plain\nlibrary\nnull\n", "a sandboxed container with what its kernel has itself")
	sandboxed.refused(codes.Unimplemented, byField("vendor.com/net=zero"), "vendor.com/net=zero", "vendor.yaml", "/dev/vendor", "its own place")
	for _, p := range []*Pod{native, sandboxed} {
		p.refused(codes.InvalidArgument, byField("vendor.com/net=none"), "CDI_devices", "vendor.com/net=none", filepath.Join(d.dir, "cdi"))
		p.refused(codes.InvalidArgument, byAnnotation("vendor.com/net=zero,"), "cdi.k8s.io")
		p.refused(codes.InvalidArgument, byField("../../etc/passwd"), "CDI_devices", "../../etc/passwd")
	}
	must(t, os.WriteFile(filepath.Join(d.dir, "cdi", "broken.json"), []byte("{"), 0o644))
	native.refused(codes.InvalidArgument, byField("vendor.com/net=none"), "broken.json")
	_, out = native.run("echo $DEVICE", byField("vendor.com/net=plain"))
	equal(t, out, "plain\n", "a device beside a broken file")
}

func TestDevicesThatASandboxHasAndHasNot(t *testing.T) {
	moatOnly(t, "it passes the node's devices through")
	p := newPod(startDaemon(t))
	device := func(host, container, permissions string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: host, ContainerPath: container, Permissions: permissions}}
		}
	}
	for _, name := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"} {
		_, out := p.run("test -c "+name+" && echo there", device(name, name, "rwm"))
		equal(t, out, "there\n", name)
	}
	p.refused(codes.Unimplemented, device("/dev/fuse", "/dev/fuse", "rwm"), "config.devices", "/dev/fuse", "native")
	p.refused(codes.Unimplemented, device("/dev/kvm", "/dev/null", "rw"), "config.devices", "/dev/kvm")
	p.refused(codes.Unimplemented, device("/dev/null", "/dev/other", "rw"), "config.devices", "/dev/other")
	p.refused(codes.InvalidArgument, device("dev/null", "/dev/null", "rw"), "config.devices", "host_path")
	p.refused(codes.InvalidArgument, device("/dev/null", "/dev/../null", "rw"), "config.devices", "container_path")
	p.refused(codes.InvalidArgument, device("/dev/null", "/dev/null", "rwx"), "config.devices", "permissions")
	// Kubelet says 0 for every size that the node has.
	pages := func(bytes uint64) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: bytes}}}
		}
	}
	_, out := p.run("echo runs", pages(0))
	equal(t, out, "runs\n", "a container without huge pages")
	p.refused(codes.Unimplemented, pages(64<<20), "hugepage_limits", "2MB", "native")
}

func TestHugePagesOfANativePod(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	d := startDaemon(t)
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skipf("this machine has no huge pages of 2 MB: %v", err)
	}
	p := newPodBy(d, "native")
	id, _ := p.start("sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 64 << 20}}}
	})
	found := false
	for _, below := range cgroupsBelow(cgroupName) {
		for _, file := range []string{"hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"} {
			if text, err := os.ReadFile(filepath.Join(below, file)); err == nil && string(text) == "67108864\n" {
				found = true
			}
		}
	}
	if !found {
		t.Skip("no hugetlb controller in this machine's hierarchies: nothing to limit")
	}
	must(t, d.runtime.StopContainer(ctx, id, 0))
}
