package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (p *Pod) address() string {
	p.t.Helper()
	state, err := p.runtime.PodSandboxStatus(ctx, p.id, false)
	must(p.t, err)
	return state.Status.Network.GetIp()
}

const webServer = "mkdir /www; echo page > /www/index.html; echo up; exec httpd -f -p 8080 -h /www"

// reach fetches a page over TCP from one pod to another and to itself.
func reach(t *testing.T, d *Daemon) {
	t.Helper()
	server, client := newPod(d), newPod(d)
	_, log := server.start(webServer)
	waitForOutput(t, log, "up")
	fetch := fmt.Sprintf("n=0; until wget -q -O - http://%s:8080/; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; usleep 100000; done", server.address())
	end, out := client.run(fetch)
	equal(t, end.ExitCode, 0, "exit code of the client")
	equal(t, out, "page\n", "over TCP from pod to pod")
	_, out = server.run(fetch)
	equal(t, out, "page\n", "over TCP from a pod to its own address")
	_, out = client.run("cat /sys/class/net/lo/operstate >/dev/null && ip addr show eth0 | grep -o 'inet [0-9.]*'")
	equal(t, strings.TrimSpace(out), "inet "+client.address(), "the address inside")
}

func TestBuiltInNetwork(t *testing.T) {
	moatOnly(t, "it has no network of its own")
	reach(t, startDaemon(t))
}

func TestCniPlugins(t *testing.T) {
	if isReference() {
		reach(t, startDaemon(t))
		return
	}
	dir, err := os.MkdirTemp(scratchDir, "n")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "net.d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10-bridge.conflist"), []byte(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bridged","plugins":[
{"type":"bridge","bridge":"moat0","isGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"%s/ipam","ranges":[[{"subnet":"10.88.0.0/16"}]]}},
{"type":"tuning","sysctl":{"net.core.somaxconn":"500"}}]}`, dir)), 0o644))
	d := startDaemonIn(t, dir, "--cni-bin-dir", "/usr/lib/cni")
	reach(t, d)
	leases := func() int {
		found, _ := filepath.Glob(filepath.Join(dir, "ipam", "bridged", "10.*"))
		return len(found)
	}
	equal(t, leases(), 2, "addresses of two pods")
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	for _, pod := range pods {
		must(t, d.runtime.StopPodSandbox(ctx, pod.Id))
		must(t, d.runtime.RemovePodSandbox(ctx, pod.Id))
	}
	equal(t, leases(), 0, "addresses after the pods")
	removeLink(t, "moat0") // the bridge plugin leaves its bridge, as it should
}

func TestAFailingCniPluginFailsThePod(t *testing.T) {
	moatOnly(t, "it words its errors in its own way")
	dir, err := os.MkdirTemp(scratchDir, "n")
	must(t, err)
	bin := filepath.Join(dir, "bin")
	must(t, os.MkdirAll(filepath.Join(dir, "net.d"), 0o755))
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10.conflist"), []byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"refuses"}]}`), 0o644))
	must(t, os.WriteFile(filepath.Join(bin, "refuses"), []byte("#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n"+
		"echo '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"no addresses left\"}'\nexit 1\n"), 0o755))
	d := startDaemonIn(t, dir, "--cni-bin-dir", bin)
	pull(d, busyboxImage)
	_, err = d.runtime.RunPodSandbox(ctx, podConfig(d), "")
	if err == nil || !strings.Contains(err.Error(), "no addresses left") {
		t.Errorf("the plugin's words are not in the error: %v", err)
	}
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	for _, pod := range pods {
		if pod.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("pod %s is ready without a network", pod.Id)
		}
	}
}

func TestHostNetwork(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "" // the node's
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	})
	// The registry listens on this namespace's loopback.
	_, out := p.run("wget -q -O - http://"+registryAddress+"/v2/test/busybox/tags/list", func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	})
	if !strings.Contains(out, "test/busybox") {
		t.Errorf("the node's loopback is not reached: %q", out)
	}
}
