package cri

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// secure gives a container a security context with the usual pid namespace, changed by the test.
func secure(change func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) {
		context := &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}
		change(context)
		c.Linux.SecurityContext = context
	}
}

// refused creates a container and wants an error of this code with these words.
func (p *Pod) refused(code codes.Code, change func(*runtimeapi.ContainerConfig), words ...string) {
	p.t.Helper()
	config := p.containerConfig("true")
	change(config)
	_, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
	failsWith(p.t, err, code, words...)
}

const seccompStatus = "grep ^Seccomp: /proc/self/status | tr -d '\\t'; "

func localhostProfile(t *testing.T, p *Pod, text string) string {
	t.Helper()
	path := filepath.Join(p.dir, fmt.Sprintf("profile%d.json", p.count))
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestSeccompProfiles(t *testing.T) {
	p := newPod(startDaemon(t))
	noChmod := localhostProfile(t, p, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}`)
	script := seccompStatus + "touch /tmp/f; chmod 600 /tmp/f 2>/dev/null && echo chmod; unshare -U true 2>/dev/null && echo unshared; true"
	for _, c := range []struct {
		name   string
		change func(*runtimeapi.LinuxContainerSecurityContext)
		wanted string
	}{
		{"nothing", func(*runtimeapi.LinuxContainerSecurityContext) {}, "Seccomp:0\nchmod\n"},
		{"unconfined", func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		}, "Seccomp:0\nchmod\n"},
		{"default", func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		}, "Seccomp:2\nchmod\n"},
		{"localhost", func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: noChmod}
		}, "Seccomp:2\n"},
		{"deprecated default", func(s *runtimeapi.LinuxContainerSecurityContext) { s.SeccompProfilePath = "runtime/default" }, "Seccomp:2\nchmod\n"},
		{"deprecated localhost", func(s *runtimeapi.LinuxContainerSecurityContext) { s.SeccompProfilePath = "localhost/" + noChmod }, "Seccomp:2\n"},
		{"deprecated unconfined", func(s *runtimeapi.LinuxContainerSecurityContext) { s.SeccompProfilePath = "unconfined" }, "Seccomp:0\nchmod\n"},
		{"privileged", func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Privileged = true
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: noChmod}
		}, "Seccomp:0\nchmod\n"},
	} {
		end, out := p.run(script, secure(c.change))
		equal(t, end.ExitCode, 0, c.name+": exit code")
		out = strings.ReplaceAll(out, "unshared\n", "") // only a reference's kernel lets an unconfined one do that
		equal(t, out, c.wanted, c.name)
	}
	exec, _ := p.start("sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}))
	stdout, _, err := p.runtime.ExecSync(ctx, exec, []string{"sh", "-c", seccompStatus}, 0)
	must(t, err)
	equal(t, string(stdout), "Seccomp:2\n", "an exec")
}

func TestSethostnameIsForTheProfileToDecide(t *testing.T) {
	p := newPod(startDaemon(t))
	forbid := localhostProfile(t, p, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}`)
	admin := &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
	script := "hostname other && hostname"
	end, out := p.run(script, secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Capabilities = admin
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}))
	equal(t, end.ExitCode, 0, "with the capability and the default profile")
	equal(t, out, "other\n", "the new name")
	end, out = p.run(script, secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Capabilities = admin
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: forbid}
	}))
	equal(t, end.ExitCode, 1, "with a profile that forbids it")
	equal(t, out, "", "output")
}

func TestBadProfilesAreRefused(t *testing.T) {
	moatOnly(t, "its words differ")
	d := startDaemon(t)
	p := newPod(d)
	notJSON := localhostProfile(t, p, "{ not json")
	p.count++
	badAction := localhostProfile(t, p, `{"defaultAction": "SCMP_ACT_PERHAPS"}`)
	seccomp := func(ref string) func(*runtimeapi.ContainerConfig) {
		return secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
		})
	}
	field := "linux.security_context.seccomp"
	p.refused(codes.InvalidArgument, seccomp("/no/such/profile.json"), field, "/no/such/profile.json")
	p.refused(codes.InvalidArgument, seccomp("relative.json"), field, "absolute")
	p.refused(codes.InvalidArgument, seccomp(""), field)
	p.refused(codes.InvalidArgument, seccomp(notJSON), field, "JSON")
	p.refused(codes.InvalidArgument, seccomp("/dev/zero"), field, "regular file")
	p.refused(codes.Internal, seccomp(badAction), "linux.seccomp.defaultAction")
	p.refused(codes.InvalidArgument, secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.SeccompProfilePath = "something/else" }), field)
	p.refused(codes.Unimplemented, secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "some-profile"}
	}), "apparmor", "some-profile")
	p.refused(codes.Unimplemented, secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.ApparmorProfile = "localhost/old-profile" }), "apparmor", "old-profile")
	for _, passes := range []func(*runtimeapi.LinuxContainerSecurityContext){
		func(s *runtimeapi.LinuxContainerSecurityContext) { s.ApparmorProfile = "runtime/default" },
		func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		},
	} {
		end, _ := p.run("true", secure(passes))
		equal(t, end.ExitCode, 0, "a profile that needs nothing")
	}
	config := podConfig(d)
	config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/no/such/profile.json"}}
	_, err := d.runtime.RunPodSandbox(ctx, config, "")
	failsWith(t, err, codes.InvalidArgument, field)
}

func TestTargetPidNamespace(t *testing.T) {
	p := newPod(startDaemon(t))
	target, _ := p.start("sleep 4321 & wait", secure(func(*runtimeapi.LinuxContainerSecurityContext) {}))
	join := func(id string) func(*runtimeapi.ContainerConfig) {
		return secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: id}
		})
	}
	// Sees and ends the process of the other; the other's root is reachable by /proc as a debugger needs.
	end, out := p.run("until pgrep -f 'sleep 4321' || kill -0 $(ps | sed -n 's/^ *\\([0-9]*\\) .*[s]leep 4321$/\\1/p'); do usleep 10000; done >/dev/null 2>&1; "+
		"[ $$ != 1 ] && echo joined; kill -9 $(ps | sed -n 's/^ *\\([0-9]*\\) .*[s]leep 4321$/\\1/p') && echo killed", join(target))
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, "joined\nkilled\n", "output")
	p.exited(target)
	if !isReference() {
		p.refused(codes.FailedPrecondition, join(target), "target_id", "does not run")
		p.refused(codes.NotFound, join("no-such-container"), "no-such-container")
		p.refused(codes.InvalidArgument, join(""), "target_id")
		other := newPod(p.Daemon)
		foreign, _ := other.start("sleep 1000")
		p.refused(codes.InvalidArgument, join(foreign), "another pod")
	}
}

func TestWhoJoinsAPidNamespaceEndsWithIt(t *testing.T) {
	p := newPod(startDaemon(t))
	target, _ := p.start("sleep 1000", secure(func(*runtimeapi.LinuxContainerSecurityContext) {}))
	debugger, log := p.start("echo here; sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target}
	}))
	waitForOutput(t, log, "here")
	must(t, p.runtime.StopContainer(ctx, target, 0))
	equal(t, p.exited(debugger).ExitCode, 137, "the debugger's exit code")
}

func TestNodeNamespacesAreRefusedByName(t *testing.T) {
	moatOnly(t, "it has the node's")
	d := startDaemon(t)
	pull(d, busyboxImage)
	for word, options := range map[string]*runtimeapi.NamespaceOption{
		".pid: NODE": {Pid: runtimeapi.NamespaceMode_NODE},
		".ipc: NODE": {Ipc: runtimeapi.NamespaceMode_NODE},
	} {
		config := podConfig(d)
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}
		_, err := d.runtime.RunPodSandbox(ctx, config, "")
		failsWith(t, err, codes.Unimplemented, word)
	}
}

func TestSysctls(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.core.somaxconn": "77", "net.ipv4.tcp_ecn": "1", "net.ipv4.ip_local_port_range": "40000 40009"}
	})
	_, out := p.run("cd /proc/sys; cat kernel/shm_rmid_forced net/core/somaxconn net/ipv4/tcp_ecn")
	equal(t, out, "1\n77\n1\n", "sysctls inside")
	if isReference() {
		return
	}
	// A sandboxed pod's sockets are the host's: these have to obey.
	host, err := exec.Command("nsenter", "--net="+filepath.Join(d.dir, "run/moatd/netns", p.id), "sh", "-c",
		"cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_ecn /proc/sys/net/ipv4/ip_local_port_range").Output()
	must(t, err)
	equal(t, strings.Join(strings.Fields(string(host)), " "), "77 1 40000 40009", "sysctls of the pod's network namespace")
	for name, value := range map[string]string{"vm.swappiness": "1", "kernel.panic": "1", "net.no.such": "1", "net.ipv4.tcp_ecn": "many", "net/../../x": "1", "": "1"} {
		config := podConfig(d)
		config.Linux.Sysctls = map[string]string{name: value}
		_, err := d.runtime.RunPodSandbox(ctx, config, "")
		failsWith(t, err, codes.InvalidArgument, fmt.Sprintf("%q", name))
	}
	config := podConfig(d)
	config.Linux.Sysctls = map[string]string{"net.core.somaxconn": "99"}
	config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	_, err = d.runtime.RunPodSandbox(ctx, config, "")
	failsWith(t, err, codes.InvalidArgument, "net.core.somaxconn", "node's network")
}
