package cri

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// raw is the generated client, for what kubelet's library has no method for.
func (d *Daemon) raw() runtimeapi.RuntimeServiceClient {
	d.t.Helper()
	connection, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(d.t, err)
	d.t.Cleanup(func() { connection.Close() })
	return runtimeapi.NewRuntimeServiceClient(connection)
}

func (d *Daemon) containerStats(id string) *runtimeapi.ContainerStats {
	d.t.Helper()
	stats, err := d.runtime.ContainerStats(ctx, id)
	must(d.t, err)
	return stats
}

func cpuOf(stats *runtimeapi.ContainerStats) time.Duration {
	return time.Duration(stats.GetCpu().GetUsageCoreNanoSeconds().GetValue())
}

func TestStatsTellContainersApart(t *testing.T) {
	p := newPod(startDaemon(t))
	const limit = 256 << 20
	limited := func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: limit, MemorySwapLimitInBytes: limit}
	}
	// One burns, one holds memory, one does nothing.
	busy, _ := p.start("while :; do :; done", limited)
	holder, log := p.start("x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo held; sleep 1000; :", limited)
	idle, _ := p.start("sleep 1000", limited)
	waitForOutput(t, log, "held")
	waitFor(t, 60*time.Second, func() bool { return cpuOf(p.containerStats(busy)) > 2*time.Second }, func() string {
		return fmt.Sprintf("CPU time: %v", p.containerStats(busy))
	})
	stats := map[string]*runtimeapi.ContainerStats{}
	for _, id := range []string{busy, holder, idle} {
		stats[id] = p.containerStats(id)
		memory := stats[id].Memory
		equal(t, stats[id].Attributes.Id, id, "id")
		if now := time.Now().UnixNano(); memory.Timestamp > now || now-memory.Timestamp > int64(time.Minute) {
			t.Errorf("timestamp %d", memory.Timestamp)
		}
		if memory.UsageBytes.Value == 0 || memory.RssBytes.Value == 0 || memory.PageFaults.Value == 0 {
			t.Errorf("memory of %s: %v", id, memory)
		}
		if memory.WorkingSetBytes.Value > memory.UsageBytes.Value {
			t.Errorf("working set above usage: %v", memory)
		}
		equal(t, memory.AvailableBytes.GetValue(), limit-memory.WorkingSetBytes.Value, "available bytes")
	}
	if cpuOf(stats[idle]) > cpuOf(stats[busy])/4 {
		t.Errorf("an idle container has CPU time: %v, the busy one %v", cpuOf(stats[idle]), cpuOf(stats[busy]))
	}
	if held, not := stats[holder].Memory.RssBytes.Value, stats[idle].Memory.RssBytes.Value; held < 30000000 || not > 20000000 {
		t.Errorf("30 MB are held: %d, and beside it %d", held, not)
	}
	// A rate over the time between the two last questions.
	waitFor(t, 60*time.Second, func() bool { return p.containerStats(busy).Cpu.UsageNanoCores.GetValue() > 100_000_000 }, func() string {
		return fmt.Sprintf("a rate: %v", p.containerStats(busy).Cpu)
	})
	if isReference() {
		return
	}
	pod, err := p.runtime.PodSandboxStats(ctx, p.id)
	must(t, err)
	equal(t, len(pod.Linux.Containers), 3, "containers in the pod's statistics")
	equal(t, pod.Attributes.Id, p.id, "pod id")
	equal(t, pod.Attributes.Metadata.Name, p.config.Metadata.Name, "pod name")
	// The sentry's and the gofers' share is on top of the containers'.
	together := uint64(0)
	for _, c := range pod.Linux.Containers {
		together += c.Memory.RssBytes.Value
	}
	if pod.Linux.Memory.RssBytes.Value <= together {
		t.Errorf("the pod's %d bytes are not more than its containers' %d", pod.Linux.Memory.RssBytes.Value, together)
	}
	if time.Duration(pod.Linux.Cpu.UsageCoreNanoSeconds.Value) < cpuOf(stats[busy]) {
		t.Errorf("the pod's CPU time %v is less than that of one container", pod.Linux.Cpu)
	}
	if pod.Linux.Process.ProcessCount.Value < 3 {
		t.Errorf("processes: %v", pod.Linux.Process)
	}
}

func TestWritableLayer(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, log := p.start("head -c 3000000 /dev/urandom > /file; mkdir /many; i=0; while [ $i -lt 40 ]; do echo > /many/$i; i=$((i + 1)); done; echo written; sleep 1000")
	waitForOutput(t, log, "written")
	layer := p.containerStats(id).WritableLayer
	if layer.UsedBytes.GetValue() < 3000000 || layer.UsedBytes.GetValue() > 4500000 {
		t.Errorf("3 MB were written: %v", layer)
	}
	if layer.InodesUsed.GetValue() < 42 || layer.InodesUsed.GetValue() > 60 {
		t.Errorf("42 files were made: %v", layer)
	}
	info, err := d.images.ImageFsInfo(ctx)
	must(t, err)
	if isReference() {
		return
	}
	equal(t, layer.FsId.Mountpoint, info.ContainerFilesystems[0].FsId.Mountpoint, "the file system's id")
	for _, fs := range []*runtimeapi.FilesystemUsage{info.ImageFilesystems[0], info.ContainerFilesystems[0]} {
		if fs.UsedBytes.GetValue() == 0 || fs.InodesUsed.GetValue() == 0 || fs.Timestamp == 0 {
			t.Errorf("usage: %v", fs)
		}
		if _, err := os.Stat(fs.FsId.Mountpoint); err != nil {
			t.Error(err)
		}
	}
}

// What native containers write is on the disk; the images that they see through their mounted roots are not theirs.
func TestWritableLayerOfANativePod(t *testing.T) {
	d := startDaemon(t)
	p := newPodBy(d, "native")
	id, log := p.start("head -c 3000000 /dev/urandom > /file; ln /file /again; echo written; sleep 1000")
	waitForOutput(t, log, "written")
	layer := p.containerStats(id).WritableLayer
	info, err := d.images.ImageFsInfo(ctx)
	must(t, err)
	for _, fs := range []*runtimeapi.FilesystemUsage{layer, info.ContainerFilesystems[0]} {
		if fs.UsedBytes.GetValue() < 3000000 || fs.UsedBytes.GetValue() > 3500000 {
			t.Errorf("3 MB were written: %v", fs)
		}
	}
}

func TestNetworkStats(t *testing.T) {
	moatOnly(t, "it may have no such RPC")
	d := startDaemon(t)
	server := newPod(d)
	_, log := server.start("mkfifo /open; sleep 1000 > /open & nc -l -p 7000 < /open > /dev/null; echo received; wait")
	state, err := d.runtime.PodSandboxStatus(ctx, server.id, false)
	must(t, err)
	client := newPod(d)
	before, err := d.runtime.PodSandboxStats(ctx, client.id)
	must(t, err)
	end, out := client.run(fmt.Sprintf("until head -c 2000000 /dev/zero | nc %s 7000; do usleep 20000; done", state.Status.Network.Ip))
	equal(t, end.ExitCode, 0, "nc: "+out)
	waitForOutput(t, log, "received")
	sent, err := d.runtime.PodSandboxStats(ctx, client.id)
	must(t, err)
	received, err := d.runtime.PodSandboxStats(ctx, server.id)
	must(t, err)
	tx := sent.Linux.Network.DefaultInterface.TxBytes.Value - before.Linux.Network.DefaultInterface.TxBytes.Value
	rx := received.Linux.Network.DefaultInterface.RxBytes.Value
	if tx < 2000000 || tx > 3000000 || rx < 2000000 || rx > 3000000 {
		t.Errorf("2 MB were sent: %d out, %d in", tx, rx)
	}
	if received.Linux.Network.DefaultInterface.Name == "" || received.Linux.Network.Timestamp == 0 {
		t.Errorf("%v", received.Linux.Network)
	}
	host := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	})
	node, err := d.runtime.PodSandboxStats(ctx, host.id)
	must(t, err)
	if node.Linux.Network != nil {
		t.Errorf("a pod in the node's network is given the node's figures: %v", node.Linux.Network)
	}
}

func TestStatsFilters(t *testing.T) {
	d := startDaemon(t)
	first, second := newPod(d), newPod(d, func(c *runtimeapi.PodSandboxConfig) { c.Labels = map[string]string{"app": "other"} })
	a, _ := first.start("sleep 1000")
	b, _ := first.start("sleep 1000", func(c *runtimeapi.ContainerConfig) { c.Labels = map[string]string{"tier": "back"} })
	c, _ := second.start("sleep 1000", func(c *runtimeapi.ContainerConfig) { c.Labels = map[string]string{"tier": "back"} })
	ended, _ := first.run("exit 0")
	list := func(filter *runtimeapi.ContainerStatsFilter) string {
		stats, err := d.runtime.ListContainerStats(ctx, filter)
		must(t, err)
		names := map[string]string{a: "a", b: "b", c: "c", ended.Id: "-"}
		found := map[string]bool{}
		for _, one := range stats {
			name := names[one.Attributes.Id]
			if name == "-" {
				if one.Cpu != nil {
					t.Error("an ended container uses a CPU")
				}
				continue
			}
			if one.Cpu == nil || one.Memory == nil {
				t.Errorf("incomplete: %v", one)
			}
			found[name] = true
		}
		order := ""
		for _, name := range []string{"a", "b", "c"} {
			if found[name] {
				order += name
			}
		}
		return order
	}
	equal(t, list(nil), "abc", "no filter")
	equal(t, list(&runtimeapi.ContainerStatsFilter{Id: b}), "b", "by id")
	equal(t, list(&runtimeapi.ContainerStatsFilter{PodSandboxId: first.id}), "ab", "by pod")
	equal(t, list(&runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"tier": "back"}}), "bc", "by label")
	equal(t, list(&runtimeapi.ContainerStatsFilter{PodSandboxId: first.id, LabelSelector: map[string]string{"tier": "back"}}), "b", "by pod and label")
	equal(t, list(&runtimeapi.ContainerStatsFilter{Id: "no such"}), "", "by an unknown id")
	_, err := d.runtime.ContainerStats(ctx, "no such")
	failsWith(t, err, codes.NotFound, "no such")
	if isReference() {
		return
	}
	pods := func(filter *runtimeapi.PodSandboxStatsFilter) int {
		stats, err := d.runtime.ListPodSandboxStats(ctx, filter)
		must(t, err)
		return len(stats)
	}
	equal(t, pods(nil), 2, "pods")
	equal(t, pods(&runtimeapi.PodSandboxStatsFilter{Id: first.id}), 1, "pods by id")
	equal(t, pods(&runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"app": "other"}}), 1, "pods by label")
	equal(t, pods(&runtimeapi.PodSandboxStatsFilter{Id: first.id, LabelSelector: map[string]string{"app": "other"}}), 0, "pods by both")
	_, err = d.runtime.PodSandboxStats(ctx, "no such")
	failsWith(t, err, codes.NotFound, "no such")
	must(t, d.runtime.StopPodSandbox(ctx, second.id))
	_, err = d.runtime.PodSandboxStats(ctx, second.id)
	failsWith(t, err, codes.FailedPrecondition, "not ready")
	equal(t, pods(nil), 1, "pods that are ready")
}

func TestMetrics(t *testing.T) {
	moatOnly(t, "it may have no such RPC")
	p := newPod(startDaemon(t))
	id, log := p.start("sleep 1000 & sleep 1000 & exec 7< /etc/passwd; i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo burnt; wait", func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 150000, CpuShares: 512, MemoryLimitInBytes: 64 << 20}
	})
	waitForOutput(t, log, "burnt")
	descriptors, err := p.runtime.ListMetricDescriptors(ctx)
	must(t, err)
	labels := map[string][]string{}
	for _, descriptor := range descriptors {
		labels[descriptor.Name] = descriptor.LabelKeys
	}
	equal(t, len(labels), 56, "described metrics")
	all, err := p.runtime.ListPodSandboxMetrics(ctx)
	must(t, err)
	equal(t, len(all), 1, "pods with metrics")
	equal(t, all[0].PodSandboxId, p.id, "pod")
	values := map[string]uint64{}
	check := func(metric *runtimeapi.Metric) {
		if len(metric.LabelValues) != len(labels[metric.Name]) {
			t.Errorf("%s: labels %v, described %v", metric.Name, metric.LabelValues, labels[metric.Name])
		}
	}
	for _, metric := range all[0].Metrics {
		check(metric)
		if strings.HasPrefix(metric.Name, "container_network_") {
			values[metric.Name] = metric.Value.Value
		}
	}
	equal(t, len(all[0].ContainerMetrics), 1, "containers with metrics")
	equal(t, all[0].ContainerMetrics[0].ContainerId, id, "container")
	for _, metric := range all[0].ContainerMetrics[0].Metrics {
		check(metric)
		values[metric.Name] = metric.Value.Value
		equal(t, strings.Join([]string{metric.LabelValues[0], metric.LabelValues[3], metric.LabelValues[4], metric.LabelValues[5]}, " "),
			"c1 "+id+" default "+p.config.Metadata.Name, metric.Name+": labels")
	}
	// What critest lets a runtime or a machine go without.
	optional := map[string]bool{"container_blkio_device_usage_total": true}
	for name := range labels {
		switch {
		case strings.HasPrefix(name, "container_hugetlb_"), strings.HasPrefix(name, "container_pressure_"), strings.HasPrefix(name, "container_fs_reads_"), strings.HasPrefix(name, "container_fs_writes_"):
			optional[name] = true
		}
		if _, found := values[name]; !found && !optional[name] {
			t.Errorf("no value for %s", name)
		}
	}
	for name, wanted := range map[string]uint64{"container_spec_memory_limit_bytes": 64 << 20, "container_spec_cpu_period": 100000,
		"container_spec_cpu_quota": 150000, "container_processes": 3, "container_threads": 3, "container_oom_events_total": 0} {
		equal(t, values[name], wanted, name)
	}
	for _, name := range []string{"container_memory_rss", "container_memory_usage_bytes", "container_memory_max_usage_bytes", "container_fs_inodes_total",
		"container_fs_limit_bytes", "container_start_time_seconds", "container_last_seen", "container_ulimits_soft"} {
		if values[name] == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if values["container_file_descriptors"] < 10 || values["container_file_descriptors"] > 30 {
		t.Errorf("file descriptors: %d", values["container_file_descriptors"])
	}
}

// TestStreamedLists: what the Stream* calls send, put together, is what the lists say.
func TestStreamedLists(t *testing.T) {
	moatOnly(t, "it may have no such RPC")
	d := startDaemon(t)
	raw := d.raw()
	empty, err := raw.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
	must(t, err)
	equal(t, len(drain(t, empty)), 0, "messages about no pods")
	p := newPod(d)
	for range 3 {
		p.start("sleep 1000")
	}
	other := newPod(d)
	collect := func(count int, ids func(int) []string) string {
		var all []string
		for i := range count {
			found := ids(i)
			if len(found) == 0 {
				t.Error("a message without items")
			}
			all = append(all, found...)
		}
		seen := map[string]bool{}
		for _, id := range all {
			if seen[id] {
				t.Errorf("%s was sent twice", id)
			}
			seen[id] = true
		}
		return fmt.Sprint(len(all))
	}
	pods, err := raw.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
	must(t, err)
	messages := drain(t, pods)
	equal(t, collect(len(messages), func(i int) (ids []string) {
		for _, pod := range messages[i].PodSandboxes {
			ids = append(ids, pod.Id)
		}
		return ids
	}), "2", "pods")
	one, err := raw.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{Filter: &runtimeapi.PodSandboxFilter{Id: other.id}})
	must(t, err)
	equal(t, drain(t, one)[0].PodSandboxes[0].Id, other.id, "the pod of the filter")
	containers, err := raw.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.id}})
	must(t, err)
	found := drain(t, containers)
	equal(t, collect(len(found), func(i int) (ids []string) {
		for _, container := range found[i].Containers {
			ids = append(ids, container.Id)
		}
		return ids
	}), "3", "containers")
	stats, err := raw.StreamContainerStats(ctx, &runtimeapi.StreamContainerStatsRequest{})
	must(t, err)
	figures := drain(t, stats)
	equal(t, collect(len(figures), func(i int) (ids []string) {
		for _, container := range figures[i].ContainerStats {
			ids = append(ids, container.Attributes.Id)
			if container.Memory.GetUsageBytes().GetValue() == 0 {
				t.Errorf("no figures: %v", container)
			}
		}
		return ids
	}), "3", "containers' statistics")
	podStats, err := raw.StreamPodSandboxStats(ctx, &runtimeapi.StreamPodSandboxStatsRequest{})
	must(t, err)
	equal(t, len(drain(t, podStats)[0].PodSandboxStats), 2, "pods' statistics")
	metrics, err := raw.StreamPodSandboxMetrics(ctx, &runtimeapi.StreamPodSandboxMetricsRequest{})
	must(t, err)
	equal(t, len(drain(t, metrics)[0].PodSandboxMetrics), 2, "pods' metrics")
	images, err := d.rawImages().StreamImages(ctx, &runtimeapi.StreamImagesRequest{})
	must(t, err)
	listed, err := d.images.ListImages(ctx, nil)
	must(t, err)
	equal(t, len(drain(t, images)[0].Images), len(listed), "images")
}

func (d *Daemon) rawImages() runtimeapi.ImageServiceClient {
	d.t.Helper()
	connection, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(d.t, err)
	d.t.Cleanup(func() { connection.Close() })
	return runtimeapi.NewImageServiceClient(connection)
}

// TestStatsAreCheap asks for the statistics of many containers at once and prints what it took.
func TestStatsAreCheap(t *testing.T) {
	moatOnly(t, "it is not measured here")
	d := startDaemon(t)
	const pods, each = 4, 5
	for range pods {
		p := newPod(d)
		for range each {
			p.start("sleep 1000")
		}
	}
	for _, what := range []struct {
		name string
		call func() (int, error)
	}{
		{"ListContainerStats", func() (int, error) { s, err := d.runtime.ListContainerStats(ctx, nil); return len(s), err }},
		{"ListPodSandboxStats", func() (int, error) { s, err := d.runtime.ListPodSandboxStats(ctx, nil); return len(s) * each, err }},
		{"ListPodSandboxMetrics", func() (int, error) { s, err := d.runtime.ListPodSandboxMetrics(ctx); return len(s) * each, err }},
	} {
		best := time.Hour
		for range 5 {
			began := time.Now()
			count, err := what.call()
			must(t, err)
			equal(t, count, pods*each, what.name)
			best = min(best, time.Since(began))
		}
		t.Logf("%s: %v for %d containers in %d pods", what.name, best, pods*each, pods)
	}
}

type receiver[T any] interface{ Recv() (T, error) }

// drain reads a stream to its end.
func drain[T any](t *testing.T, stream receiver[T]) (all []T) {
	t.Helper()
	for {
		message, err := stream.Recv()
		if err != nil {
			if err.Error() != "EOF" {
				t.Errorf("the stream ends with %v", err)
			}
			return all
		}
		all = append(all, message)
	}
}
