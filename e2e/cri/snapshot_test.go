package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// snapshot is what must be the same before and after a test. run.py puts the tests into namespaces and a cgroup
// of their own, so that nothing else of the machine shows in it.
type snapshot map[string][]string

func takeSnapshot() snapshot {
	s := snapshot{}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	netnsFile := regexp.MustCompile(` (net:\[\d+\]) `)
	namespaces := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(mounts)), "\n") {
		head, tail, _ := strings.Cut(line, " - ")
		s["mount"] = append(s["mount"], strings.Fields(head)[4]+" "+strings.Join(strings.Fields(tail)[:2], " "))
		if match := netnsFile.FindStringSubmatch(line); match != nil {
			namespaces[match[1]] = true
		}
	}
	for _, pid := range processes() {
		fields := statFields(pid)
		if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" || pid == registryPid {
			continue
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		s["process"] = append(s["process"], fmt.Sprintf("%d %s", pid, strings.TrimSpace(string(comm))))
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			namespaces[link] = true
		}
	}
	for namespace := range namespaces {
		s["network namespace"] = append(s["network namespace"], namespace)
	}
	s["cgroup"] = cgroupsBelow(cgroupName)
	links, _ := os.ReadDir("/sys/class/net")
	for _, link := range links {
		s["interface"] = append(s["interface"], link.Name())
	}
	for _, items := range s {
		sort.Strings(items)
	}
	return s
}

func (s snapshot) moreThan(before snapshot) []string {
	var found []string
	for kind, items := range s {
		left := map[string]int{}
		for _, item := range before[kind] {
			left[item]++
		}
		for _, item := range items {
			if left[item]--; left[item] < 0 {
				found = append(found, "left behind: "+kind+" "+item)
			}
		}
	}
	sort.Strings(found)
	return found
}

// cleanUp takes away what a failed test left, so that the next one starts clean.
func cleanUp(before snapshot) {
	known := map[string]bool{}
	for _, item := range before["process"] {
		known[strings.Fields(item)[0]] = true
	}
	for _, pid := range processes() {
		if pid != 1 && pid != os.Getpid() && pid != registryPid && !known[strconv.Itoa(pid)] {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, leak := range takeSnapshot().moreThan(before) {
		if rest, ok := strings.CutPrefix(leak, "left behind: mount "); ok {
			syscall.Unmount(strings.Fields(rest)[0], syscall.MNT_DETACH)
		}
	}
	groups := cgroupsBelow(cgroupName)
	for i := len(groups) - 1; i >= 0; i-- {
		os.Remove(groups[i])
	}
}

func processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// statFields is /proc/PID/stat behind the name: [0] is the state, [1] the parent; empty when gone.
func statFields(pid int) []string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
}

func hierarchies() []string {
	const top = "/sys/fs/cgroup"
	if _, err := os.Stat(top + "/cgroup.procs"); err == nil {
		return []string{top}
	}
	var found []string
	entries, _ := os.ReadDir(top)
	for _, entry := range entries {
		path := filepath.Join(top, entry.Name())
		if _, err := os.Stat(path + "/cgroup.procs"); err == nil && entry.Type()&os.ModeSymlink == 0 {
			found = append(found, path)
		}
	}
	return found
}

func cgroupsBelow(name string) []string {
	var found []string
	for _, hierarchy := range hierarchies() {
		top := filepath.Join(hierarchy, name)
		filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && path != top {
				found = append(found, path)
			}
			return nil
		})
	}
	sort.Strings(found)
	return found
}
