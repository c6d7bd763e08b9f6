package cri

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

func TestBuiltInNetwork(t *testing.T) { eachHandler(t, testBuiltInNetwork) }

func testBuiltInNetwork(t *testing.T) {
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

// fetch asks the node's side for a page, and returns what came of it.
func fetch(address string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + address + "/")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// init makes this program a guest's: busybox has nothing that listens for datagrams.
func init() {
	if os.Getenv("MOAT_E2E_GUEST") != "udp" {
		return
	}
	socket, err := net.ListenPacket("udp", "0.0.0.0:5353")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	for datagram := make([]byte, 100); ; {
		if n, from, err := socket.ReadFrom(datagram); err == nil {
			socket.WriteTo(append([]byte("back: "), datagram[:n]...), from)
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func withHostPort(ports ...*runtimeapi.PortMapping) func(*runtimeapi.PodSandboxConfig) {
	return func(c *runtimeapi.PodSandboxConfig) { c.PortMappings = ports }
}

// hostPorts reaches a pod by a port of the node: from the node's loopback, by another address of the node, from another
// pod and from the pod itself; over UDP; through a restart; and not any more when the pod has stopped.
func hostPorts(t *testing.T, d *Daemon, node string) {
	t.Helper()
	server := newPod(d, withHostPort(&runtimeapi.PortMapping{HostPort: 12080, ContainerPort: 8080},
		&runtimeapi.PortMapping{HostPort: 12053, ContainerPort: 5353, Protocol: runtimeapi.Protocol_UDP}))
	_, log := server.start(webServer)
	waitForOutput(t, log, "up")
	_, udpLog := server.start("exec /guest", func(c *runtimeapi.ContainerConfig) {
		self, err := os.Executable()
		must(t, err)
		c.Mounts = []*runtimeapi.Mount{{HostPath: self, ContainerPath: "/guest", Readonly: true}}
		c.Envs = []*runtimeapi.KeyValue{{Key: "MOAT_E2E_GUEST", Value: []byte("udp")}}
	})
	waitForOutput(t, udpLog, "up")
	reached := func(address string) {
		t.Helper()
		waitFor(t, 20*time.Second, func() bool { page, _ := fetch(address); return page == "page\n" },
			func() string { _, err := fetch(address); return fmt.Sprintf("%s answers: %v", address, err) })
	}
	reached("127.0.0.1:12080")
	reached(node + ":12080")
	connection, err := net.Dial("udp", "127.0.0.1:12053")
	must(t, err)
	defer connection.Close()
	waitFor(t, 20*time.Second, func() bool {
		connection.Write([]byte("a datagram"))
		connection.SetReadDeadline(time.Now().Add(time.Second))
		answer := make([]byte, 100)
		n, _ := connection.Read(answer)
		return string(answer[:n]) == "back: a datagram"
	}, func() string { return "the pod answers a datagram" })
	other := newPod(d)
	for _, pod := range []*Pod{other, server} {
		end, out := pod.run(fmt.Sprintf("wget -q -O - http://%s:12080/", node))
		equal(t, end.ExitCode, 0, "exit code")
		equal(t, out, "page\n", "by the node's port from a pod")
	}
	d.kill()
	reached("127.0.0.1:12080") // nobody is there, and it is reached
	d.start()
	reached("127.0.0.1:12080")
	must(t, d.runtime.StopPodSandbox(ctx, server.id))
	if page, err := fetch("127.0.0.1:12080"); err == nil {
		t.Errorf("the port of a stopped pod answers %q", page)
	}
}

// nodeAddress gives this namespace an address beside loopback, as a node has.
func nodeAddress(t *testing.T) string {
	t.Helper()
	must(t, exec.Command("ip", "addr", "add", "192.0.2.1/32", "dev", "lo").Run())
	t.Cleanup(func() { exec.Command("ip", "addr", "del", "192.0.2.1/32", "dev", "lo").Run() })
	return "192.0.2.1"
}

func TestHostPortsOfTheBuiltInNetwork(t *testing.T) {
	moatOnly(t, "it has no network of its own")
	node := nodeAddress(t)
	d := startDaemon(t)
	hostPorts(t, d, node)
	// The port is free again, and taken once.
	port := &runtimeapi.PortMapping{HostPort: 12080, ContainerPort: 80}
	newPod(d, withHostPort(port))
	_, err := d.runtime.RunPodSandbox(ctx, func() *runtimeapi.PodSandboxConfig {
		c := podConfig(d)
		c.PortMappings = []*runtimeapi.PortMapping{port}
		return c
	}(), "")
	if err == nil || !strings.Contains(err.Error(), "host port 12080/tcp: pod ") {
		t.Errorf("a host port was given twice: %v", err)
	}
	// A pod with host ports must not reach the node's loopback by that way.
	spy := newPod(d, withHostPort(&runtimeapi.PortMapping{HostPort: 12081, ContainerPort: 81}))
	// As a pod that may arrange its own network could: the way to 127.0.0.1 leads out of eth0.
	_, port5000, _ := net.SplitHostPort(registryAddress)
	out, err := exec.Command("nsenter", "--net="+filepath.Join(d.dir, "run/moatd/netns", spy.id), "sh", "-c", `ip addr del 127.0.0.1/8 dev lo
echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet && ip route add 127.0.0.1 via 169.254.1.1 dev eth0 onlink || exit 9
busybox nc -w 2 127.0.0.1 `+port5000+` </dev/null`).CombinedOutput()
	if code := exitCode(err); code != 1 {
		t.Errorf("a pod that sends to the node's loopback: exit code %d: %s", code, out)
	}
	for _, wrong := range []*runtimeapi.PortMapping{{HostPort: 70000, ContainerPort: 1}, {HostPort: 80, ContainerPort: -1}, {HostPort: 80, ContainerPort: 80, HostIp: "x; drop"}, {HostPort: 80, ContainerPort: 80, Protocol: 9}} {
		config := podConfig(d)
		config.PortMappings = []*runtimeapi.PortMapping{wrong}
		_, err := d.runtime.RunPodSandbox(ctx, config, "")
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "config.port_mappings") {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

func TestHostPortsOfTheCniPlugin(t *testing.T) {
	node := nodeAddress(t)
	dir, err := os.MkdirTemp(scratchDir, "n")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "net.d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10-bridge.conflist"), []byte(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bridged","plugins":[
{"type":"bridge","bridge":"moat0","isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"%s/ipam","ranges":[[{"subnet":"10.88.0.0/16"}]]}},
{"type":"portmap","capabilities":{"portMappings":true}}]}`, dir)), 0o644))
	d := startDaemonIn(t, dir, "--cni-bin-dir", "/usr/lib/cni")
	t.Cleanup(func() { removeLink(t, "moat0") })
	hostPorts(t, d, node)
}

// outside is a network namespace behind a link: a neighbour of the node that knows nothing of the pods' addresses.
func TestPodsReachTheWorldWhereTheNodeForwards(t *testing.T) {
	moatOnly(t, "it has no network of its own")
	// It waits for its link, gives it an address, and serves.
	server := exec.Command("unshare", "--net", "sh", "-c", `ip link set lo up; until ip addr add 198.51.100.2/24 dev far 2>/dev/null; do sleep 0.02; done
ip link set far up; exec busybox nc -ll -p 9000 -e echo outside`)
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, server.Start())
	defer func() {
		syscall.Kill(-server.Process.Pid, syscall.SIGKILL)
		server.Wait()
		exec.Command("ip", "link", "del", "node1").Run()
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644)
	}()
	waitFor(t, 10*time.Second, func() bool {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", server.Process.Pid))
		return err == nil && !strings.HasSuffix(name, "unshare")
	}, func() string { return "it is in its namespace" })
	script := fmt.Sprintf("ip link add node1 type veth peer name far netns %d && ip addr add 198.51.100.1/24 dev node1 && ip link set node1 up", server.Process.Pid)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	d := startDaemon(t)
	end, out := newPod(d).run("n=0; until nc 198.51.100.2 9000 </dev/null; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; usleep 100000; done")
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, "outside\n", "from beyond the node")
}

func networkReady(d *Daemon) (bool, string) {
	d.t.Helper()
	answer, err := d.runtime.Status(ctx, false)
	must(d.t, err)
	for _, condition := range answer.Status.Conditions {
		if condition.Type == "NetworkReady" {
			return condition.Status, condition.Reason + ": " + condition.Message
		}
	}
	d.t.Fatal("no condition NetworkReady")
	return false, ""
}

func TestACniConfigurationThatChangesWhileRunning(t *testing.T) {
	moatOnly(t, "it is given one at its start")
	d := startDaemonIn(t, func() string { dir, err := os.MkdirTemp(scratchDir, "n"); must(t, err); return dir }(), "--cni-bin-dir", "/usr/lib/cni")
	conf := filepath.Join(d.dir, "net.d")
	builtin := newPod(d)
	if !strings.HasPrefix(builtin.address(), "10.213.") {
		t.Errorf("without a configuration the address is %s", builtin.address())
	}
	list := func(subnet, dns string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp","ipam":{"type":"host-local","dataDir":"%s/ipam","ranges":[[{"subnet":"%s"}],[{"subnet":"fd00:77::/64"}]]},"dns":%s}]}`, d.dir, subnet, dns)
	}
	must(t, os.Mkdir(conf, 0o755))
	must(t, os.WriteFile(filepath.Join(conf, "10.conflist"), []byte(list("10.77.0.0/24", `{"nameservers":["10.77.0.53"],"search":["cluster.example"]}`)), 0o644))
	first := newPod(d)
	if !strings.HasPrefix(first.address(), "10.77.0.") {
		t.Errorf("with a configuration the address is %s", first.address())
	}
	state, err := d.runtime.PodSandboxStatus(ctx, first.id, true)
	must(t, err)
	if more := state.Status.Network.AdditionalIps; len(more) != 1 || !strings.HasPrefix(more[0].Ip, "fd00:77::") {
		t.Errorf("additional addresses %v", more)
	}
	waitFor(t, 30*time.Second, func() bool {
		state, err = d.runtime.PodSandboxStatus(ctx, first.id, true)
		must(t, err)
		return state.Info["networkCheckedAt"] != ""
	}, func() string { return "a CHECK that was asked for has an answer" })
	equal(t, state.Info["networkCheck"], "ok", "CHECK")
	_, out := first.run("cat /etc/resolv.conf")
	equal(t, out, "search cluster.example\nnameserver 10.77.0.53\n", "names by the network's word")
	_, out = first.run("ip addr show lo | grep -o 'inet [0-9./]*'")
	equal(t, strings.TrimSpace(out), "inet 127.0.0.1/8", "loopback")

	must(t, os.WriteFile(filepath.Join(conf, "10.conflist"), []byte(`{"cniVersion":"1.0.0","name":`), 0o644))
	if ready, why := networkReady(d); ready || !strings.Contains(why, "NetworkPluginNotReady") || !strings.Contains(why, "10.conflist") {
		t.Errorf("with a broken configuration: ready %v, %s", ready, why)
	}
	if _, err := d.runtime.RunPodSandbox(ctx, podConfig(d), ""); err == nil || !strings.Contains(err.Error(), "10.conflist") {
		t.Errorf("a pod with a broken configuration: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(conf, "10.conflist"), []byte(list("10.78.0.0/24", "{}")), 0o644))
	if ready, why := networkReady(d); !ready {
		t.Errorf("mended and not ready: %s", why)
	}
	second := newPod(d)
	if !strings.HasPrefix(second.address(), "10.78.0.") {
		t.Errorf("with another configuration the address is %s", second.address())
	}
	// Each goes by the configuration that it was made with, after a restart as well.
	d.kill()
	d.start()
	equal(t, first.address()[:8], "10.77.0.", "the address after a restart")
	leases := func() int { found, _ := filepath.Glob(filepath.Join(d.dir, "ipam", "n", "10.*")); return len(found) }
	equal(t, leases(), 2, "leases")
	for _, pod := range []*Pod{builtin, first, second} {
		must(t, d.runtime.StopPodSandbox(ctx, pod.id))
	}
	equal(t, leases(), 0, "leases after the pods")
}

func TestACniPluginThatHangsOrLies(t *testing.T) {
	moatOnly(t, "it words its errors in its own way")
	dir, err := os.MkdirTemp(scratchDir, "n")
	must(t, err)
	bin := filepath.Join(dir, "bin")
	must(t, os.MkdirAll(filepath.Join(dir, "net.d"), 0o755))
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "net.d", "10.conflist"), []byte(`{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"plugin"}]}`), 0o644))
	plugin := func(add, other string) {
		must(t, os.WriteFile(filepath.Join(bin, "plugin"), []byte("#!/bin/sh\necho $CNI_COMMAND >> "+dir+"/calls\nif [ $CNI_COMMAND = ADD ]; then\n"+add+"\nelse\n"+other+"\nfi\n"), 0o755))
	}
	plugin("exit 1", "cat >> "+dir+"/calls")
	d := startDaemonIn(t, dir, "--cni-bin-dir", bin, "--cni-timeout", "2")
	calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
	if !strings.Contains(string(calls), "GC\n") || !strings.Contains(string(calls), `"cni.dev/valid-attachments":[]`) {
		t.Errorf("GC at the start: %q", calls)
	}
	pull(d, busyboxImage)
	for _, c := range []struct{ add, want string }{
		{"sleep 1000", "killed after 2000 ms"},
		{"echo hello", "not a result: hello"},
		{"exec cat /dev/zero", "printed more than"},
		{"kill -9 $$", "exit code 137"},
		{"echo '{}'", "gave no address"},
	} {
		plugin(c.add, "exit 0")
		must(t, os.WriteFile(filepath.Join(dir, "calls"), nil, 0o644))
		_, err := d.runtime.RunPodSandbox(ctx, podConfig(d), "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.add, err)
		}
		if c.want != "gave no address" && (err == nil || !strings.Contains(err.Error(), "CNI ADD by plugin plugin")) {
			t.Errorf("%s: plugin and verb are not named: %v", c.add, err)
		}
		calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
		if !strings.Contains(string(calls), "DEL") {
			t.Errorf("%s: DEL was not run: %q", c.add, calls)
		}
	}
	plugin("exit 1", `[ $CNI_COMMAND != STATUS ] || { echo '{"code":50,"msg":"the agent is away"}'; exit 1; }`)
	if ready, why := networkReady(d); ready || !strings.Contains(why, "the agent is away") {
		t.Errorf("STATUS: ready %v, %s", ready, why)
	}
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	equal(t, len(pods), 0, "pods")
	plugin("exit 1", "exit 0")
}

func TestHostNetwork(t *testing.T) { eachHandler(t, testHostNetwork) }

func testHostNetwork(t *testing.T) {
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
