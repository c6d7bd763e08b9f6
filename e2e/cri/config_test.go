package cri

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (d *Daemon) logText() string {
	data, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(data)
}

// logged waits until the daemon's log has said something once more than before.
func (d *Daemon) logged(text string, before int) {
	d.t.Helper()
	waitFor(d.t, 20*time.Second, func() bool { return strings.Count(d.logText(), text) > before },
		func() string { return fmt.Sprintf("the log says %q; it ends:\n%s", text, d.lastLog()) })
}

// reload has the daemon read its configuration again and waits for what it says of that.
func (d *Daemon) reload(text string) {
	d.t.Helper()
	before := strings.Count(d.logText(), text)
	must(d.t, d.command.Process.Signal(syscall.SIGHUP))
	d.logged(text, before)
}

func TestTheConfigurationIsReadAgainOnSighup(t *testing.T) {
	moatOnly(t, "its configuration is another")
	dir, err := os.MkdirTemp(scratchDir, "c")
	must(t, err)
	file := filepath.Join(dir, "moatd.toml")
	write := func(text string) { must(t, os.WriteFile(file, []byte(text), 0o644)) }
	write("[log]\nlevel = \"warning\"\n")
	d := startDaemonIn(t, dir, "--config", file)
	const name = "images.invalid/test/busybox:1"
	pullIt := func() error {
		_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, nil, nil)
		return err
	}
	if pullIt() == nil {
		t.Fatal("a registry that is not there gave an image")
	}
	write(fmt.Sprintf("strace = true\n[log]\nlevel = \"info\"\n[registry]\nmirrors = [\"images.invalid=http://%s\"]\n", registryAddress))
	d.reload("changed: log.level, registry.mirrors")
	d.logged("needs a restart of moatd: strace", 0)
	must(t, pullIt())

	write("[registry]\nmirrors = []\n[log]\nlevel = 5\n")
	d.reload(file + ":4: log.level: wants a string, has an integer")
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: name}))
	must(t, pullIt()) // the old mirrors are still there

	write("")
	d.reload("configuration reloaded")
	must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: name}))
	if pullIt() == nil {
		t.Error("the mirror is gone from the configuration and was asked")
	}
}

func TestABrokenConfigurationDoesNotStart(t *testing.T) {
	moatOnly(t, "its configuration is another")
	file := filepath.Join(t.TempDir(), "moatd.toml")
	must(t, os.WriteFile(file, []byte("root = \"/r\"\n[cni]\nconfdir = \"/x\"\n"), 0o644))
	for _, arguments := range [][]string{{"--config", file}, {"config", "check", "--config", file}, {"config", "show", "--config", file}} {
		out, err := exec.Command(filepath.Join(buildDir, "moatd"), arguments...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), file+":3: unknown setting cni.confdir") {
			t.Errorf("moatd %v: %v: %s", arguments, err, out)
		}
	}
	out, err := exec.Command(filepath.Join(buildDir, "moatd"), "config", "default").Output()
	must(t, err)
	must(t, os.WriteFile(file, out, 0o644))
	if out, err := exec.Command(filepath.Join(buildDir, "moatd"), "config", "check", "--config", file).CombinedOutput(); err != nil {
		t.Errorf("the defaults are refused: %v: %s", err, out)
	}
	shown, err := exec.Command(filepath.Join(buildDir, "moatd"), "config", "show", "--config", file, "--cni-bin-dir", "/elsewhere").Output()
	must(t, err)
	equal(t, string(shown), strings.Replace(string(out), "\"/opt/cni/bin\"", "\"/elsewhere\"", 1), "what file and command line make")
}
