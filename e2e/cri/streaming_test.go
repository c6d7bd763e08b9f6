package cri

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What kubelet and crictl speak to a runtime, and what kubectl speaks by default.
var transports = []string{"spdy", "websocket"}

func eachTransport(t *testing.T, f func(t *testing.T, transport string)) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			if transport == "websocket" {
				moatOnly(t, "its streaming server does not speak v5.channel.k8s.io")
			}
			f(t, transport)
		})
	}
}

func executor(t *testing.T, transport, address string) remotecommand.Executor {
	t.Helper()
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	parsed, err := url.Parse(address)
	must(t, err)
	var e remotecommand.Executor
	if transport == "websocket" {
		e, err = remotecommand.NewWebSocketExecutor(config, "GET", address)
	} else {
		e, err = remotecommand.NewSPDYExecutor(config, "POST", parsed)
	}
	must(t, err)
	return e
}

// buffer is written by the client library and looked at by the test.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func (b *buffer) waitFor(t *testing.T, text string) {
	t.Helper()
	waitFor(t, 30*time.Second, func() bool { return strings.Contains(b.String(), text) },
		func() string { return fmt.Sprintf("%q in %q", text, b.String()) })
}

// sizes is a terminal that the test resizes.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, open := <-s
	if !open {
		return nil
	}
	return &size
}

func (d *Daemon) execURL(id string, stdin, tty bool, command ...string) string {
	d.t.Helper()
	answer, err := d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: command, Stdin: stdin, Stdout: true, Stderr: !tty, Tty: tty})
	must(d.t, err)
	return answer.Url
}

func (d *Daemon) attachURL(id string, stdin, tty bool) string {
	d.t.Helper()
	answer, err := d.runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: stdin, Stdout: true, Stderr: !tty, Tty: tty})
	must(d.t, err)
	return answer.Url
}

func limited(t *testing.T) context.Context {
	limit, cancel := context.WithTimeout(ctx, 120*time.Second)
	t.Cleanup(cancel)
	return limit
}

// execute runs a script and returns what came out and its exit code.
func execute(t *testing.T, d *Daemon, transport, id string, stdin io.Reader, script string) (string, string, int) {
	t.Helper()
	var out, err buffer
	options := remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Stderr: &err}
	failure := executor(t, transport, d.execURL(id, stdin != nil, false, "/bin/sh", "-c", script)).StreamWithContext(limited(t), options)
	var exit clientexec.CodeExitError
	if errors.As(failure, &exit) {
		return out.String(), err.String(), exit.Code
	}
	must(t, failure)
	return out.String(), err.String(), 0
}

func TestExecStreams(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		out, err, code := execute(t, d, transport, id, nil, "echo out; echo err >&2; exit 7")
		equal(t, out, "out\n", "stdout")
		equal(t, err, "err\n", "stderr")
		equal(t, code, 7, "exit code")
		_, _, code = execute(t, d, transport, id, nil, "kill -9 $$")
		equal(t, code, 137, "exit code of a killed process")
		out, _, code = execute(t, d, transport, id, nil, "true")
		equal(t, out, "", "output of true")
		equal(t, code, 0, "exit code of true")
		// The process reads end of file when the client has no more, and still answers.
		out, _, code = execute(t, d, transport, id, strings.NewReader("one\ntwo\n"), "cat; echo end")
		equal(t, out, "one\ntwo\nend\n", "what cat read")
		equal(t, code, 0, "exit code of cat")
		// All of it, though the process has ended long before it is read.
		out, _, code = execute(t, d, transport, id, nil, "head -c 3000000 /dev/zero | tr '\\0' x; exit 3")
		equal(t, len(out), 3000000, "bytes of output")
		equal(t, code, 3, "exit code after them")
		// One who does not read its input does not keep the client for ever.
		_, _, code = execute(t, d, transport, id, bytes.NewReader(make([]byte, 1<<20)), "exit 4")
		equal(t, code, 4, "exit code without reading stdin")
	})
}

func TestExec64MiBBothWays(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		data := make([]byte, 64<<20)
		_, err := rand.Read(data)
		must(t, err)
		sum := sha256.New()
		var stderr buffer
		began := time.Now()
		must(t, executor(t, transport, d.execURL(id, true, false, "/bin/cat")).StreamWithContext(limited(t),
			remotecommand.StreamOptions{Stdin: bytes.NewReader(data), Stdout: sum, Stderr: &stderr}))
		t.Logf("64 MiB in and out again: %v", time.Since(began))
		equal(t, fmt.Sprintf("%x", sum.Sum(nil)), fmt.Sprintf("%x", sha256.Sum256(data)), "checksum of what came back")
		equal(t, stderr.String(), "", "stderr")
	})
}

func TestExecWithATerminal(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		var out buffer
		input, keyboard := io.Pipe()
		terminal := make(sizes, 1)
		terminal <- remotecommand.TerminalSize{Width: 101, Height: 31}
		done := make(chan error, 1)
		go func() {
			done <- executor(t, transport, d.execURL(id, true, true, "/bin/sh", "-c",
				"stty size; tty; trap 'stty size; exit 5' WINCH; echo ready; while :; do read -r l && echo \"got $l\"; done")).
				StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: input, Stdout: &out, Tty: true, TerminalSizeQueue: terminal})
		}()
		out.waitFor(t, "ready")
		// The first size is there before the process is.
		if !strings.HasPrefix(out.String(), "31 101\r\n/dev/pts/") {
			t.Errorf("the process began with %q", out.String())
		}
		keyboard.Write([]byte("hello\n"))
		out.waitFor(t, "got hello\r\n")
		terminal <- remotecommand.TerminalSize{Width: 90, Height: 20}
		keyboard.Write([]byte("\n")) // busybox's read goes on after the signal
		out.waitFor(t, "20 90")
		var exit clientexec.CodeExitError
		if err := <-done; !errors.As(err, &exit) || exit.Code != 5 {
			t.Errorf("it ended with %v, wanted exit code 5", err)
		}
		close(terminal)
		keyboard.Close()
	})
}

func TestExecThatCannotBe(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	ended, _ := p.start("exit 0")
	p.exited(ended)
	_, err := d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: ended, Cmd: []string{"true"}, Stdout: true})
	failsWith(t, err, codes.FailedPrecondition)
	_, err = d.runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: ended, Stdout: true})
	failsWith(t, err, codes.FailedPrecondition)
	_, err = d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: "nobody", Cmd: []string{"true"}, Stdout: true})
	failsWith(t, err, codes.NotFound)
	_, err = d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}})
	failsWith(t, err, codes.InvalidArgument, "stdin, stdout")
	_, err = d.runtime.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true, Stderr: true, Tty: true})
	failsWith(t, err, codes.InvalidArgument, "tty and stderr")
	_, err = d.runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: "nobody"})
	failsWith(t, err, codes.NotFound)
	eachTransport(t, func(t *testing.T, transport string) {
		var out buffer
		err := executor(t, transport, d.execURL(id, false, false, "/no/such/program")).StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such file") {
			t.Errorf("a program that is not there: %v", err)
		}
	})
}

func get(t *testing.T, address string, headers map[string]string) *http.Response {
	t.Helper()
	request, err := http.NewRequest("POST", address, nil)
	must(t, err)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	answer.Body.Close()
	return answer
}

func TestTokensWorkOnce(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	address := d.execURL(id, false, false, "/bin/echo", "once")
	var out buffer
	must(t, executor(t, "spdy", address).StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &out, Stderr: &out}))
	equal(t, out.String(), "once\n", "output")
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
	equal(t, get(t, address, upgrade).StatusCode, http.StatusNotFound, "the same again")
	parsed, err := url.Parse(address)
	must(t, err)
	for _, path := range []string{"/exec/unknown", "/exec/", "/", "/attach/x/y", "/../etc/passwd"} {
		equal(t, get(t, "http://"+parsed.Host+path, upgrade).StatusCode, http.StatusNotFound, path)
	}
	// A token of one kind is not one of another.
	exec := d.execURL(id, false, false, "/bin/true")
	equal(t, get(t, strings.Replace(exec, "/exec/", "/attach/", 1), upgrade).StatusCode, http.StatusNotFound, "exec's token for attach")

	answer := get(t, d.execURL(id, false, false, "/bin/true"), map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"})
	equal(t, answer.StatusCode, http.StatusBadRequest, "no protocol named")
	answer = get(t, d.execURL(id, false, false, "/bin/true"), map[string]string{"X-Stream-Protocol-Version": "v4.channel.k8s.io"})
	equal(t, answer.StatusCode, http.StatusBadRequest, "no upgrade asked for")
	answer = get(t, d.execURL(id, false, false, "/bin/true"), map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v9.channel.k8s.io"})
	equal(t, answer.StatusCode, http.StatusForbidden, "a protocol that nobody speaks")
	if accepted := answer.Header.Values("X-Accepted-Stream-Protocol-Versions"); len(accepted) != 4 || accepted[0] != "v4.channel.k8s.io" {
		t.Errorf("accepted: %v", accepted)
	}
	answer = get(t, d.execURL(id, false, false, "/bin/true"), map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "v9.channel.k8s.io"})
	equal(t, answer.StatusCode, http.StatusForbidden, "a WebSocket protocol that nobody speaks")
}

func TestAClientThatDisappears(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		mark := "4242" + fmt.Sprint(len(transport))
		gone, cancel := context.WithCancel(ctx)
		var out buffer
		input, keyboard := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- executor(t, transport, d.execURL(id, true, false, "/bin/sh", "-c", "echo up; cat >/dev/null; touch /eof"+mark+"; sleep "+mark)).
				StreamWithContext(gone, remotecommand.StreamOptions{Stdin: input, Stdout: &out, Stderr: &out})
		}()
		out.waitFor(t, "up")
		cancel()
		<-done
		// As with the reference: it reads end of file and lives on.
		seen := func() string {
			stdout, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "ls /eof" + mark + "; ps | grep -c '[s]leep " + mark + "'"}, 0)
			if err != nil {
				return err.Error()
			}
			return string(stdout)
		}
		waitFor(t, 30*time.Second, func() bool { return seen() == "/eof"+mark+"\n1\n" }, func() string { return "the process has read end of file and lives: " + seen() })
		keyboard.Close()
	})
}

// A client that does not read slows the process down; moatd does not hold what is in between.
func TestASlowClient(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		before := residentBytes(d.pid())
		reader, writer := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- executor(t, transport, d.execURL(id, false, false, "/bin/sh", "-c", "head -c 200000000 /dev/zero; touch /written")).
				StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: writer, Stderr: io.Discard})
			writer.Close()
		}()
		head := make([]byte, 1)
		_, err := io.ReadFull(reader, head)
		must(t, err)
		for range 20 { // other requests are served meanwhile, and the guest has had its time to run ahead
			_, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/true"}, 0)
			must(t, err)
		}
		_, _, err = d.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "[ ! -e /written ]"}, 0)
		if err != nil {
			t.Errorf("the process wrote 200 MB that nobody has read: %v", err)
		}
		if grown := residentBytes(d.pid()) - before; grown > 32<<20 {
			t.Errorf("moatd has grown by %d bytes", grown)
		}
		n, err := io.Copy(io.Discard, reader)
		must(t, err)
		equal(t, n, 199999999, "bytes that were read in the end")
		must(t, <-done)
		_, _, _ = d.runtime.ExecSync(ctx, id, []string{"rm", "/written"}, 0)
	})
}

func residentBytes(pid int) int64 {
	var size, resident int64
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fmt.Sscan(string(data), &size, &resident)
	return resident * int64(os.Getpagesize())
}

// ---------------------------------------------------------------- attach

type attached struct {
	t        *testing.T
	out, err buffer
	keyboard *io.PipeWriter
	sizes    sizes
	done     chan error
	cancel   context.CancelFunc
}

func attach(t *testing.T, d *Daemon, transport, id string, stdin, tty bool) *attached {
	t.Helper()
	a := &attached{t: t, done: make(chan error, 1), sizes: make(sizes, 1)}
	limit, cancel := context.WithTimeout(ctx, 120*time.Second)
	a.cancel = cancel
	options := remotecommand.StreamOptions{Stdout: &a.out, Tty: tty}
	if stdin {
		reader, writer := io.Pipe()
		options.Stdin, a.keyboard = reader, writer
	}
	if tty {
		options.TerminalSizeQueue = a.sizes
	} else {
		options.Stderr = &a.err
	}
	e := executor(t, transport, d.attachURL(id, stdin, tty))
	go func() { a.done <- e.StreamWithContext(limit, options) }()
	t.Cleanup(func() {
		cancel()
		if a.keyboard != nil {
			a.keyboard.Close()
		}
	})
	return a
}

func (a *attached) type_(text string) {
	a.t.Helper()
	_, err := a.keyboard.Write([]byte(text))
	must(a.t, err)
}

func (a *attached) ends() {
	a.t.Helper()
	select {
	case err := <-a.done:
		must(a.t, err)
	case <-time.After(60 * time.Second):
		a.t.Fatalf("the attach does not end; it has shown %q", a.out.String())
	}
}

const echoing = "echo up; while read -r l; do echo \"got $l\"; echo \"err $l\" >&2; done; echo eof; exit 6"

func withStdin(once bool) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, once }
}

func TestAttach(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	eachTransport(t, func(t *testing.T, transport string) {
		id, log := p.start(echoing, withStdin(false))
		waitForOutput(t, log, "up")
		first, second := attach(t, d, transport, id, true, false), attach(t, d, transport, id, false, false)
		// Not before the second is there too can both see all.
		waitFor(t, 30*time.Second, func() bool {
			first.type_("?\n")
			return strings.Contains(second.out.String(), "got ?") && strings.Contains(first.out.String(), "got ?")
		}, func() string { return "both see what is written" })
		first.type_("hello\n")
		first.out.waitFor(t, "got hello\n")
		second.out.waitFor(t, "got hello\n")
		first.err.waitFor(t, "err hello\n")
		second.err.waitFor(t, "err hello\n")
		waitForOutput(t, log, "got hello")
		// The end of one client's input is no end of file.
		first.keyboard.Close()
		first.ends()
		third := attach(t, d, transport, id, true, false)
		third.type_("again\n")
		third.out.waitFor(t, "got again\n")
		second.cancel()
		<-second.done
		third.type_("and again\n")
		third.out.waitFor(t, "got and again\n")
		must(t, d.runtime.StopContainer(ctx, id, 0))
		third.ends()
		equal(t, strings.Count(stdoutOf(t, log), "got hello\n"), 1, "lines in the log")
	})
}

func TestAttachStdinOnce(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	eachTransport(t, func(t *testing.T, transport string) {
		id, log := p.start(echoing, withStdin(true))
		a := attach(t, d, transport, id, true, false)
		a.type_("last words\n")
		a.keyboard.Close()
		// The container reads end of file, and its client sees the rest.
		a.ends()
		for _, text := range []string{"got last words\n", "eof\n"} {
			if !strings.Contains(a.out.String(), text) {
				t.Errorf("%q was not shown: %q", text, a.out.String())
			}
		}
		equal(t, p.exited(id).ExitCode, 6, "exit code")
		equal(t, strings.HasSuffix(stdoutOf(t, log), "got last words\neof\n"), true, "the log's end")
	})
}

func TestAttachToATerminal(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	eachTransport(t, func(t *testing.T, transport string) {
		id, log := p.start("echo up; while read -r l; do [ \"$l\" = size ] && stty size; [ \"$l\" = quit ] && exit 8; echo \"got $l\"; done",
			func(c *runtimeapi.ContainerConfig) { c.Tty, c.Stdin = true, true })
		waitForOutput(t, log, "up")
		if !isReference() {
			// Its terminal is the sentry's: it outlives the moatd that made it, and so does its log.
			d.kill()
			d.start()
		}
		a := attach(t, d, transport, id, true, true)
		a.sizes <- remotecommand.TerminalSize{Width: 77, Height: 22}
		waitFor(t, 30*time.Second, func() bool {
			a.type_("size\n")
			return strings.Contains(a.out.String(), "22 77\r\n")
		}, func() string { return fmt.Sprintf("the size arrives: %q", a.out.String()) })
		b := attach(t, d, transport, id, true, true)
		b.type_("typed by b\n")
		a.out.waitFor(t, "got typed by b\r\n")
		b.out.waitFor(t, "got typed by b\r\n")
		waitForOutput(t, log, "got typed by b")
		b.cancel()
		<-b.done
		must(t, os.Rename(log, log+".1"))
		must(t, d.runtime.ReopenContainerLog(ctx, id))
		a.type_("rotated\n")
		a.out.waitFor(t, "got rotated\r\n")
		waitForOutput(t, log, "got rotated")
		a.type_("quit\n")
		a.ends()
		equal(t, p.exited(id).ExitCode, 8, "exit code")
		close(a.sizes)
	})
}

// Somebody who is attached and reads nothing slows the container down, but not for ever.
func TestOneWhoDoesNotReadIsCutOff(t *testing.T) {
	moatOnly(t, "there he stalls the container")
	d := startDaemon(t)
	p := newPod(d)
	eachTransport(t, func(t *testing.T, transport string) {
		id, log := p.start("while [ ! -e /go ]; do usleep 1000; done; head -c 24000000 /dev/zero | tr '\\0' x; echo; echo end")
		reader, writer := io.Pipe()
		go executor(t, transport, d.attachURL(id, false, false)).
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: writer, Stderr: writer})
		good := attach(t, d, transport, id, false, false)
		_, _, err := d.runtime.ExecSync(ctx, id, []string{"/bin/sh", "-c", "for i in 1 2 3; do echo ping > /proc/1/fd/1; done; touch /go"}, 0)
		must(t, err)
		waitFor(t, 100*time.Second, func() bool { return d.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED },
			func() string { return "the container writes on and ends" })
		good.ends()
		if !strings.HasSuffix(good.out.String(), "end\n") {
			t.Errorf("one who reads has not seen the end")
		}
		reader.Close()
		must(t, os.Remove(log))
	})
}

// ---------------------------------------------------------------- what it is served on

func TestStreamsOverTLS(t *testing.T) {
	moatOnly(t, "its configuration is another")
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certificate, key)
	d := startDaemonIn(t, dir, "--stream-tls-cert", certificate, "--stream-tls-key", key)
	p := newPod(d)
	id, _ := p.start("sleep 1000")
	eachTransport(t, func(t *testing.T, transport string) {
		if address := d.execURL(id, false, false, "/bin/true"); !strings.HasPrefix(address, "https://127.0.0.1:") {
			t.Fatalf("URL %s", address)
		}
		out, _, code := execute(t, d, transport, id, bytes.NewReader(make([]byte, 1<<20)), "wc -c; exit 9")
		equal(t, strings.TrimSpace(out), "1048576", "bytes through TLS")
		equal(t, code, 9, "exit code")
	})
	// Whoever does not speak TLS gets nowhere, and nobody minds.
	parsed, err := url.Parse(d.execURL(id, false, false, "/bin/true"))
	must(t, err)
	plain, err := net.Dial("tcp", parsed.Host)
	must(t, err)
	fmt.Fprintf(plain, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", parsed.Path)
	plain.SetDeadline(time.Now().Add(30 * time.Second))
	answer, _ := io.ReadAll(plain)
	if bytes.Contains(answer, []byte("HTTP/1.1 101")) {
		t.Errorf("plain HTTP was served: %q", answer)
	}
	plain.Close()
}
