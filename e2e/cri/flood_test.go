package cri

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// callHeaders are the HPACK of a call, by literals that need no table.
func callHeaders(path string) []byte {
	literal := func(name, value string) []byte {
		return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
	}
	headers := append([]byte{0x83, 0x86}, literal(":path", path)...)
	return append(append(append(headers, literal(":authority", "x")...), literal("content-type", "application/grpc")...), literal("te", "trailers")...)
}

// peers are connections whose other ends do as they like.
type peers []net.Conn

func (p *peers) dial(t *testing.T, d *Daemon, sent []byte) bool {
	t.Helper()
	// The backlog may be full for a moment.
	var connection net.Conn
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if connection, err = net.DialTimeout("unix", d.socket, 5*time.Second); err == nil {
			break
		} else if time.Now().After(deadline) {
			return false // nobody accepts any more
		}
	}
	connection.SetDeadline(time.Now().Add(60 * time.Second))
	connection.Write(sent)
	*p = append(*p, connection)
	return true
}

func (p peers) close() {
	for _, connection := range p {
		connection.Close()
	}
}

// Each flood stands while an honest client asks; then it goes, and nothing of it is left.
func TestFloods(t *testing.T) {
	moatOnly(t, "it is Go's own server")
	d := startDaemon(t)
	pod := newPod(d)
	id, _ := pod.start("sleep 1000")
	call := frame(1, 4, 1, callHeaders("/runtime.v1.RuntimeService/ListMetricDescriptors"))
	message := frame(0, 1, 1, []byte{0, 0, 0, 0, 0})
	start := append([]byte(http2Preface), frame(4, 0, 0, nil)...)
	noWindow := append([]byte(http2Preface), frame(4, 0, 0, []byte{0, 4, 0, 0, 0, 0})...)
	served := func(what string) {
		t.Helper()
		began := time.Now()
		if _, err := d.runtime.ListContainers(ctx, nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, _, err := d.runtime.ExecSync(ctx, id, []string{"true"}, 20*time.Second); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		t.Logf("%s: served in %v, %d MiB, %d descriptors", what, time.Since(began).Round(time.Millisecond), residentBytes(d.pid())>>20, len(d.allDescriptors()))
	}
	// Behind all those who wait to be accepted.
	letIn := func(what string) {
		t.Helper()
		fresh := &Daemon{t: t, dir: d.dir, socket: d.socket}
		waitFor(t, 60*time.Second, func() bool { return fresh.tryConnect() == nil }, func() string { return what + ": nobody is let in any more" })
		fresh.runtime.Close(ctx)
		fresh.images.Close(ctx)
	}
	served("no flood")
	baseMemory, baseDescriptors := residentBytes(d.pid()), len(d.allDescriptors())
	for _, flood := range []struct {
		name        string
		connections int
		sent        []byte
	}{
		{"2000 connections that say nothing", 2000, nil},
		{"2000 halves of a preface", 2000, []byte(http2Preface[:12])},
		{"1000 calls without a message", 1000, bytes.Join([][]byte{start, call}, nil)},
		{"1000 calls of half a message", 1000, bytes.Join([][]byte{start, call, frame(0, 0, 1, []byte{0, 0, 1, 0, 0, 'x'})}, nil)},
		{"1000 readers that do not read", 1000, bytes.Join([][]byte{noWindow, call, message}, nil)},
	} {
		var all peers
		for range flood.connections {
			if !all.dial(t, d, flood.sent) {
				break
			}
		}
		if len(all) < flood.connections {
			t.Errorf("%s: only %d were accepted", flood.name, len(all))
		}
		served(flood.name)
		if used := residentBytes(d.pid()) - baseMemory; used > 600<<20 {
			t.Errorf("%s: %d MiB", flood.name, used>>20)
		}
		all.close()
		letIn(flood.name)
		waitFor(t, 30*time.Second, func() bool { return len(d.allDescriptors()) < baseDescriptors+20 },
			func() string { return flood.name + ": its descriptors stay" })
	}

	// One connection, as much as it can hold: streams that begin and wait, rubbish for ever.
	var many bytes.Buffer
	many.Write(start)
	for stream := uint32(1); stream < 6000; stream += 2 {
		many.Write(frame(1, 4, stream, callHeaders("/runtime.v1.RuntimeService/Version")))
	}
	var all peers
	all.dial(t, d, many.Bytes())
	served("3000 calls on one connection")
	for _, again := range [][]byte{bytes.Repeat([]byte("x"), 150000), bytes.Repeat(frame(6, 0, 0, make([]byte, 8)), 9000), bytes.Repeat(frame(4, 0, 0, nil), 16000)} {
		all.dial(t, d, append(bytes.Clone(start), frame(1, 0, 1, callHeaders("/x"))...))
		connection := all[len(all)-1]
		go io.Copy(io.Discard, connection)
		for sent := 0; sent < 64<<20; sent += len(again) {
			if _, err := connection.Write(again); err != nil {
				break // cut off, as it should be
			}
		}
		served("64 MiB of rubbish")
	}
	all.close()
	if used := residentBytes(d.pid()) - baseMemory; used > 600<<20 {
		t.Errorf("%d MiB stay", used>>20)
	}

	// Out of descriptors: those who hold them are served, and whoever comes when there are some again.
	var before unix.Rlimit
	must(t, unix.Prlimit(d.pid(), unix.RLIMIT_NOFILE, nil, &before))
	must(t, unix.Prlimit(d.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(d.allDescriptors()) + 50), Max: before.Max}, nil))
	all = nil
	for range 300 {
		all.dial(t, d, nil)
	}
	if _, err := d.runtime.Version(ctx, "v1"); err != nil {
		t.Errorf("without descriptors, on a connection that is there: %v", err)
	}
	all.close()
	must(t, unix.Prlimit(d.pid(), unix.RLIMIT_NOFILE, &before, nil))
	waitFor(t, 30*time.Second, func() bool { return len(d.allDescriptors()) < baseDescriptors+20 }, func() string { return "the connections stay" })
	letIn("after all of them")
	served("after all of them")
}

func (d *Daemon) allDescriptors() []os.DirEntry {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid()))
	return entries
}
