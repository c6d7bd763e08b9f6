package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type podTrick struct {
	name   string
	change func(*runtimeapi.PodSandboxConfig)
	words  []string // none: it is taken
}

var podTricks = []podTrick{
	{"a name with a slash", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "../../etc" }, []string{"config.metadata.name", "etc"}},
	{"a name that adds to CNI_ARGS", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a;IP=10.0.0.1" }, []string{"config.metadata.name"}},
	{"a name of two lines", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "a\nb" }, []string{"config.metadata.name"}},
	{"a long name", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = strings.Repeat("a", 254) }, []string{"config.metadata.name", "253"}},
	{"no metadata", func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil }, []string{"config.metadata.name", "missing"}},
	{"a namespace that is a path", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = ".." }, []string{"config.metadata.namespace"}},
	{"a namespace with an argument", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = "x;K8S_POD_NAME=y" }, []string{"config.metadata.namespace"}},
	{"a uid with a path", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "u/../../v" }, []string{"config.metadata.uid"}},
	{"no uid", func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "" }, []string{"config.metadata.uid", "missing"}},
	{"a host name of two lines", func(c *runtimeapi.PodSandboxConfig) { c.Hostname = "h\n10.0.0.1 bank" }, []string{"config.hostname"}},
	{"a long host name", func(c *runtimeapi.PodSandboxConfig) { c.Hostname = strings.Repeat("h", 65) }, []string{"config.hostname", "64"}},
	{"a log directory below us", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" }, []string{"config.log_directory", "absolute"}},
	{"a log directory that climbs", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory += "/../../.." }, []string{"config.log_directory", ".."}},
	{"a log directory with a long name", func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory += "/" + strings.Repeat("l", 256) }, []string{"config.log_directory"}},
	{"a cgroup that climbs", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent += "/../../x" }, []string{"config.linux.cgroup_parent", ".."}},
	{"a cgroup of two lines", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent += "/a\nb" }, []string{"config.linux.cgroup_parent"}},
	{"a slice that is none", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "a/b.slice:x:y" }, []string{"config.linux.cgroup_parent"}},
	{"a sysctl that is a path", func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net/../kernel/panic": "1"} }, []string{"config.linux.sysctls", "panic"}},
	{"a sysctl that climbs", func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net...kernel.panic": "1"} }, []string{"config.linux.sysctls"}},
	{"a sysctl of the node", func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"kernel.panic": "1"} }, []string{"config.linux.sysctls", "kernel.panic"}},
	{"a name server of two lines", func(c *runtimeapi.PodSandboxConfig) {
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1\nsearch evil"}}
	}, []string{"config.dns_config.servers"}},
	{"too many annotations", func(c *runtimeapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"a": strings.Repeat("a", 200<<10), "b": strings.Repeat("b", 100<<10)}
	}, []string{"config.annotations", "262144"}},
	{"too many labels", func(c *runtimeapi.PodSandboxConfig) {
		c.Labels = map[string]string{"a": strings.Repeat("a", 200<<10), "b": strings.Repeat("b", 100<<10)}
	}, []string{"config.labels"}},
	{"a bandwidth that is none", func(c *runtimeapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "$(reboot)"}
	}, []string{"ingress-bandwidth"}},
	{"a port that is none", func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 70000, ContainerPort: 80}}
	}, []string{"config.port_mappings", "70000"}},
	{"a host address that is none", func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 12080, ContainerPort: 80, HostIp: "127.0.0.1; drop"}}
	}, []string{"config.port_mappings", "host_ip"}},
	{"the network of another container", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_CONTAINER}}
	}, []string{"namespace_options.network", "CONTAINER"}},
	{"quotas that are none", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 7}
	}, []string{"config.linux.resources", "cpu_period"}},
	{"a cgroup's file that is a path", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{Unified: map[string]string{"../memory.max": "1"}}
	}, []string{"config.linux.resources", "unified"}},
	{"quotes, blanks and unicode in annotations and labels", func(c *runtimeapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"a \"b\" \\": "\u2028\n\t'; DROP TABLE pods; --"}
		c.Labels = map[string]string{"": "", "'": "%s%n"}
	}, nil},
	{"the longest name and host name", func(c *runtimeapi.PodSandboxConfig) {
		c.Metadata.Name, c.Hostname = strings.Repeat("a", 253), strings.Repeat("h", 64)
	}, nil},
}

func TestPodsOfHostileNames(t *testing.T) {
	moatOnly(t, "the words are moat's")
	eachHandler(t, func(t *testing.T) {
		d := startDaemon(t)
		for _, trick := range podTricks {
			config := podConfig(d)
			trick.change(config)
			id, err := d.runtime.RunPodSandbox(ctx, config, "")
			if trick.words != nil {
				failsWith(t, err, codes.InvalidArgument, trick.words...)
			} else if err != nil {
				t.Errorf("%s: %v", trick.name, err)
			} else {
				must(t, d.runtime.StopPodSandbox(ctx, id))
				must(t, d.runtime.RemovePodSandbox(ctx, id))
			}
			if t.Failed() {
				t.Fatalf("failed at: %s", trick.name)
			}
		}
		_, err := d.runtime.RunPodSandbox(ctx, podConfig(d), "../native")
		failsWith(t, err, codes.InvalidArgument, "runtime_handler", "../native")
		pods, err := d.runtime.ListPodSandbox(ctx, nil)
		must(t, err)
		if len(pods) != 0 {
			t.Errorf("%d pods are left of what was refused", len(pods))
		}
	})
}

func TestContainersOfHostilePaths(t *testing.T) {
	moatOnly(t, "the words are moat's")
	eachHandler(t, func(t *testing.T) {
		p := newPod(startDaemon(t))
		host := filepath.Join(p.dir, "host")
		must(t, os.MkdirAll(filepath.Join(host, "sub"), 0o755))
		must(t, os.Symlink("loop", filepath.Join(host, "loop")))
		must(t, os.WriteFile(filepath.Join(host, "file"), nil, 0o644))
		secret := filepath.Join(p.dir, "secret")
		must(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
		must(t, os.Symlink(secret, filepath.Join(p.config.LogDirectory, "link.log")))
		must(t, os.Symlink(p.dir, filepath.Join(p.config.LogDirectory, "linked")))
		must(t, unix.Mkfifo(filepath.Join(p.config.LogDirectory, "fifo.log"), 0o600))
		must(t, os.Mkdir(filepath.Join(p.config.LogDirectory, "directory.log"), 0o755))
		mount := func(container, host string) func(*runtimeapi.ContainerConfig) {
			return func(c *runtimeapi.ContainerConfig) {
				c.Mounts = []*runtimeapi.Mount{{ContainerPath: container, HostPath: host}}
			}
		}
		logs := func(path string) func(*runtimeapi.ContainerConfig) {
			return func(c *runtimeapi.ContainerConfig) { c.LogPath = path }
		}
		profile := func(path string) func(*runtimeapi.ContainerConfig) {
			return secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
				s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: path}
			})
		}
		for _, trick := range []struct {
			change func(*runtimeapi.ContainerConfig)
			words  []string
		}{
			{func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "a/b" }, []string{"config.metadata.name"}},
			{func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "\x1b[2J" }, []string{"config.metadata.name"}},
			{func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = ".." }, []string{"config.metadata.name"}},
			{func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }, []string{"config.metadata.name", "missing"}},
			{func(c *runtimeapi.ContainerConfig) { c.Image = nil }, []string{"config.image.image", "missing"}},
			{logs("../../../evil.log"), []string{"config.log_path", ".."}},
			{logs("/etc/evil.log"), []string{"config.log_path", "relative"}},
			{logs("a/../../b.log"), []string{"config.log_path", ".."}},
			{logs("a\nb.log"), []string{"config.log_path"}},
			{logs(strings.Repeat("l", 256)), []string{"config.log_path"}},
			{logs(strings.Repeat("l/", 3000)), []string{"config.log_path"}},
			{logs("link.log"), []string{"config.log_path", "link.log"}},
			{logs("linked/evil.log"), []string{"config.log_path", "linked"}},
			{logs("fifo.log"), []string{"config.log_path", "fifo.log"}},
			{logs("directory.log"), []string{"config.log_path", "directory.log"}},
			{mount("", host), []string{"config.mounts", "container_path", "missing"}},
			{mount("/", host), []string{"config.mounts", "container_path", "root"}},
			{mount("//./", host), []string{"config.mounts", "container_path", "root"}},
			{mount("data", host), []string{"config.mounts", "container_path", "absolute"}},
			{mount("/a/../../..", host), []string{"config.mounts", "container_path", ".."}},
			{mount("/proc/sys", host), []string{"config.mounts", "/proc/sys"}},
			{mount("/proc/self", host), []string{"config.mounts", "/proc/self"}},
			{mount("//proc/./1", host), []string{"config.mounts", "/proc"}},
			{mount("/v\nw", host), []string{"config.mounts", "container_path"}},
			{mount("/"+strings.Repeat("v", 256), host), []string{"config.mounts", "container_path"}},
			{mount("/v", ""), []string{"config.mounts", "/v", "host_path", "missing"}},
			{mount("/v", "host"), []string{"config.mounts", "/v", "host_path", "absolute"}},
			{mount("/v", host+"/../../secret"), []string{"config.mounts", "/v", "host_path", ".."}},
			{mount("/v", host+"/loop/x"), []string{"config.mounts", "/v", "host_path"}},
			{mount("/v", host+"/file/x"), []string{"config.mounts", "/v", "host_path"}},
			{mount("/v", "/"+strings.Repeat("h/", 3000)), []string{"config.mounts", "/v", "host_path"}},
			{func(c *runtimeapi.ContainerConfig) {
				c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", Readonly: true, Image: &runtimeapi.ImageSpec{Image: busyboxImage}, ImageSubPath: "../../.."}}
			}, []string{"image_sub_path", ".."}},
			{func(c *runtimeapi.ContainerConfig) { c.Envs = []*runtimeapi.KeyValue{{Key: "A=B", Value: []byte("x")}} }, []string{"config.envs", "A=B"}},
			{func(c *runtimeapi.ContainerConfig) {
				c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpusetCpus: "0;1"}
			}, []string{"config.linux.resources", "cpuset_cpus"}},
			{profile("profile.json"), []string{"seccomp", "profile.json", "absolute"}},
			{profile(host + "/../secret"), []string{"seccomp", ".."}},
			{profile(filepath.Join(p.config.LogDirectory, "fifo.log")), []string{"seccomp", "fifo.log"}},
			{profile("/proc/self/environ"), []string{"seccomp", "environ"}},
			{profile(host), []string{"seccomp", "host"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.MaskedPaths = []string{"proc/kcore"} }), []string{"masked_paths", "proc/kcore"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.ReadonlyPaths = []string{"/proc/../etc"} }), []string{"readonly_paths", ".."}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = &runtimeapi.Int64Value{Value: -1} }), []string{"run_as_user"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
				s.RunAsUser = &runtimeapi.Int64Value{Value: 1 << 40}
			}), []string{"run_as_user"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUsername = "root:x:0" }), []string{"root:x:0"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{-5} }), []string{"supplemental_groups"}},
			{secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
				s.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"../CAP"}}
			}), []string{"../CAP"}},
		} {
			p.refused(codes.InvalidArgument, trick.change, trick.words...)
			if t.Failed() {
				t.FailNow()
			}
		}
		for _, image := range []string{"../../etc/passwd", "a b\nc", strings.Repeat("a/", 2000) + "b", "sha256:", "localhost/x@sha256:../.."} {
			p.refused(codes.NotFound, func(c *runtimeapi.ContainerConfig) { c.Image.Image = image }, "image", "not on this node")
		}
		after, err := os.ReadFile(secret)
		must(t, err)
		equal(t, string(after), "secret\n", "the file behind the link")
		containers, err := p.runtime.ListContainers(ctx, nil)
		must(t, err)
		equal(t, len(containers), 0, "containers of what was refused")
		// What looks odd and means something.
		for path, wanted := range map[string]string{"/v//./w/": "/v/w", "/tmp/ü \"'$(x)": "/tmp/ü \"'$(x)", "/proc/cpuinfo": "/proc/cpuinfo"} {
			source := filepath.Join(host, "sub")
			if wanted == "/proc/cpuinfo" {
				source = filepath.Join(host, "file")
			}
			id, err := p.runtime.CreateContainer(ctx, p.id, func() *runtimeapi.ContainerConfig {
				c := p.containerConfig("true")
				mount(path, source)(c)
				c.Command = []string{"/bin/ls", "-d", wanted}
				return c
			}(), p.config)
			must(t, err)
			must(t, p.runtime.StartContainer(ctx, id))
			equal(t, p.exited(id).ExitCode, 0, "a mount at "+path)
		}
	})
}

// A volume's links are the pod's affair: what they name is looked for inside, whichever way they point.
func TestLinksInVolumesLeadNowhere(t *testing.T) {
	moatOnly(t, "containerd's runc does the same")
	eachHandler(t, func(t *testing.T) {
		p := newPod(startDaemon(t))
		volume, outside := filepath.Join(p.dir, "volume"), filepath.Join(p.dir, "outside")
		must(t, os.MkdirAll(volume, 0o755))
		must(t, os.MkdirAll(outside, 0o755))
		must(t, os.Symlink(strings.Repeat("../", 12)+outside[1:], filepath.Join(volume, "climbs")))
		must(t, os.Symlink(outside, filepath.Join(volume, "absolute")))
		other := filepath.Join(p.dir, "other")
		must(t, os.MkdirAll(other, 0o755))
		must(t, os.WriteFile(filepath.Join(other, "mine"), nil, 0o644))
		for _, link := range []string{"climbs", "absolute"} {
			config := p.containerConfig("ls /v/" + link + "/made; echo x > /v/" + link + "/made/written")
			config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/v", HostPath: volume}, {ContainerPath: "/v/" + link + "/made", HostPath: other}}
			id, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
			if err == nil {
				must(t, p.runtime.StartContainer(ctx, id))
				p.exited(id)
			} else {
				t.Logf("refused: %v", err)
			}
			if left, _ := os.ReadDir(outside); len(left) != 0 {
				t.Errorf("behind %s was made: %v", link, left)
			}
		}
	})
}

// A pod without a log directory keeps no logs: its containers' log paths begin nowhere.
func TestNoLogDirectoryNoLogs(t *testing.T) {
	eachHandler(t, func(t *testing.T) {
		p := newPod(startDaemon(t), func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "" })
		path := strings.TrimPrefix(filepath.Join(p.dir, "evil.log"), "/")
		config := p.containerConfig("echo x")
		config.LogPath = path
		id, err := p.runtime.CreateContainer(ctx, p.id, config, p.config)
		must(t, err)
		must(t, p.runtime.StartContainer(ctx, id))
		equal(t, p.exited(id).ExitCode, 0, "exit code")
		if _, err := os.Stat("/" + path); err == nil {
			t.Error("a log was written below the root")
		}
		equal(t, p.status(id).LogPath, "", "the log path of its status")
	})
}
