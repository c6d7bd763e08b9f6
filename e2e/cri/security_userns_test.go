package cri

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func userNamespace(mappings ...*runtimeapi.IDMapping) *runtimeapi.UserNamespace {
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: mappings, Gids: mappings}
}

func withUserNamespace(userns *runtimeapi.UserNamespace) func(*runtimeapi.PodSandboxConfig) {
	return func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{UsernsOptions: userns}}
	}
}

func TestUserNamespace(t *testing.T) {
	moatOnly(t, "id-mapped mounts need a recent runc")
	mapping := &runtimeapi.IDMapping{HostId: 200000, Length: 65536}
	p := newPod(startDaemon(t), withUserNamespace(userNamespace(mapping)))
	volume := filepath.Join(p.dir, "volume")
	must(t, os.Mkdir(volume, 0o777))
	must(t, os.WriteFile(filepath.Join(volume, "five"), nil, 0o644))
	must(t, os.Chown(filepath.Join(volume, "five"), 5, 6))
	must(t, os.WriteFile(filepath.Join(volume, "beyond"), nil, 0o644))
	must(t, os.Chown(filepath.Join(volume, "beyond"), 70000, 70001))
	must(t, os.Chmod(filepath.Join(volume, "beyond"), 0o600))
	end, out := p.run(`cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; stat -c '%u %g' / /v/five /v/beyond
		cat /v/beyond 2>/dev/null || echo no-read; chmod 666 /v/beyond 2>/dev/null || echo no-chmod
		touch /v/new && chown 7:8 /v/new && echo mapped; chown 65536 /v/new 2>/dev/null || echo unmapped; chown 0:65536 /v/new 2>/dev/null || echo unmapped-group`,
		func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: volume,
				UidMappings: []*runtimeapi.IDMapping{mapping}, GidMappings: []*runtimeapi.IDMapping{mapping}}}
		})
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, " 0 200000 65536\n 0 200000 65536\n0\n0 0\n5 6\n65534 65534\nno-read\nno-chmod\nmapped\nunmapped\nunmapped-group\n", "output")
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(volume, "new"), &st))
	equal(t, st.Uid, 7, "owner of the new file on the node")
	equal(t, st.Gid, 8, "its group")
}

// By the newest runc: that of Debian 12 maps no ids of mounts, and with it the handler refuses such pods.
func TestUserNamespaceOfANativePod(t *testing.T) {
	moatOnly(t, "its handlers have other names")
	mapping := &runtimeapi.IDMapping{HostId: 200000, Length: 65536}
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	must(t, os.Chmod(dir, 0o711)) // what is root in the pod comes through
	d := startDaemonIn(t, dir, "--native-runtime", os.Getenv("MOAT_RUNC"))
	p := newPodBy(d, "native", withUserNamespace(userNamespace(mapping)))
	volume := filepath.Join(p.dir, "volume")
	must(t, os.Mkdir(volume, 0o777))
	must(t, os.Chmod(volume, 0o777))
	must(t, os.WriteFile(filepath.Join(volume, "five"), nil, 0o644))
	must(t, os.Chown(filepath.Join(volume, "five"), 5, 6))
	withVolume := func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: volume,
			UidMappings: []*runtimeapi.IDMapping{mapping}, GidMappings: []*runtimeapi.IDMapping{mapping}}}
	}
	end, out := p.run(`cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u
		stat -c '%u %g' / /bin /v/five /etc/hosts /dev/shm; touch /v/new && chown 7:8 /v/new && echo mapped
		touch /mine /dev/shm/x && echo 1.2.3.4 there >> /etc/hosts && ls -d /sys/class/net/lo; hostname new 2>/dev/null || echo no CAP_SYS_ADMIN`, withVolume)
	equal(t, end.ExitCode, 0, "exit code")
	equal(t, out, " 0 200000 65536\n 0 200000 65536\n0\n0 0\n0 0\n5 6\n0 0\n0 0\nmapped\n/sys/class/net/lo\nno CAP_SYS_ADMIN\n", "output")
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(volume, "new"), &st))
	equal(t, st.Uid, 7, "owner of the new file on the node")
	equal(t, st.Gid, 8, "its group")
	_, log := p.start(webServer)
	waitForOutput(t, log, "up")
	_, out = newPodBy(d, "native").run("wget -q -O - http://" + p.address() + ":8080/")
	equal(t, out, "page\n", "what a pod without a user namespace reads from it")
}

func TestUserNamespacesThatAreRefused(t *testing.T) {
	moatOnly(t, "the words are moat's")
	d := startDaemon(t)
	pull(d, busyboxImage)
	good := &runtimeapi.IDMapping{HostId: 200000, Length: 65536}
	for _, c := range []struct {
		userns *runtimeapi.UserNamespace
		word   string
	}{
		{userNamespace(), "exactly one"},
		{userNamespace(good, good), "exactly one"},
		{userNamespace(&runtimeapi.IDMapping{ContainerId: 1, HostId: 200000, Length: 65536}), "id 0"},
		{userNamespace(&runtimeapi.IDMapping{HostId: 200000}), "range"},
		{&runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_CONTAINER}, "CONTAINER"},
		{&runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_TARGET}, "TARGET"},
	} {
		config := podConfig(d)
		withUserNamespace(c.userns)(config)
		_, err := d.runtime.RunPodSandbox(ctx, config, "")
		failsWith(t, err, codes.InvalidArgument, "userns_options", c.word)
	}
	p := newPod(d, withUserNamespace(userNamespace(good)))
	config := p.containerConfig("true")
	config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: p.dir}}
	_, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
	failsWith(t, err, codes.Unimplemented, "/v", "uidMappings")
}
