package cri

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
)

func dialer(t *testing.T, transport, address string) httpstream.Dialer {
	t.Helper()
	parsed, err := url.Parse(address)
	must(t, err)
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	if transport == "websocket" {
		d, err := portforward.NewSPDYOverWebsocketDialerForStreaming(parsed, config)
		must(t, err)
		return d
	}
	trip, upgrader, err := spdy.RoundTripperFor(config)
	must(t, err)
	return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: trip}, "POST", parsed)
}

func (p *Pod) forwardURL(ports ...int32) string {
	p.t.Helper()
	answer, err := p.runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: p.id, Port: ports})
	must(p.t, err)
	return answer.Url
}

// forward makes local ports out of the pod's, as kubectl does.
func forward(t *testing.T, p *Pod, transport string, ports ...string) []portforward.ForwardedPort {
	t.Helper()
	stop, ready := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	var messages buffer
	forwarder, err := portforward.NewForStreaming(dialer(t, transport, p.forwardURL()), ports, stop, ready, &messages, &messages)
	must(t, err)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("port-forward: %v: %s", err, messages.String())
	}
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	found, err := forwarder.GetPorts()
	must(t, err)
	return found
}

func TestPortForward(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	_, log := p.start("mkdir /www; echo page > /www/index.html; head -c 3000000 /dev/zero > /www/big; echo up; exec httpd -f -p 8080 -h /www")
	waitForOutput(t, log, "up")
	_, log = p.start("printf '#!/bin/sh\\ncat\\necho end\\n' > /echo; chmod +x /echo; echo up; exec nc -ll -p 8081 -e /echo")
	waitForOutput(t, log, "up")
	eachTransport(t, func(t *testing.T, transport string) {
		ports := forward(t, p, transport, ":8080", ":8081")
		fetch := func(path string) (string, error) {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 60 * time.Second}
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", ports[0].Local, path))
			if err != nil {
				return "", err
			}
			defer answer.Body.Close()
			data, err := io.ReadAll(answer.Body)
			return string(data), err
		}
		waitFor(t, 30*time.Second, func() bool { page, err := fetch(""); return err == nil && page == "page\n" }, func() string { return "the page arrives" })
		var wait sync.WaitGroup
		for range 16 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				if data, err := fetch("big"); err != nil || len(data) != 3000000 {
					t.Errorf("one of many at once: %d bytes, %v", len(data), err)
				}
			}()
		}
		wait.Wait()
		// Half-close: the server reads end of file and still answers.
		connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[1].Local))
		must(t, err)
		must(t, connection.SetDeadline(time.Now().Add(60*time.Second)))
		sent := strings.Repeat("0123456789abcdef", 100000)
		go func() {
			io.WriteString(connection, sent)
			connection.(*net.TCPConn).CloseWrite()
		}()
		answer, err := io.ReadAll(connection)
		must(t, err)
		if string(answer) != sent+"end\n" {
			t.Errorf("%d bytes came back, wanted %d", len(answer), len(sent)+4)
		}
		connection.Close()
	})
}

// What the error stream says, and that the session lives on.
func TestPortForwardToNobody(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d)
	eachTransport(t, func(t *testing.T, transport string) {
		connection, protocol, err := dialer(t, transport, p.forwardURL()).Dial("portforward.k8s.io")
		must(t, err)
		defer connection.Close()
		equal(t, protocol, "portforward.k8s.io", "protocol")
		for request := range 2 {
			headers := http.Header{}
			headers.Set("port", "4711")
			headers.Set("requestID", fmt.Sprint(request))
			headers.Set("streamType", "error")
			failures, err := connection.CreateStream(headers)
			must(t, err)
			headers.Set("streamType", "data")
			data, err := connection.CreateStream(headers)
			must(t, err)
			text, _ := io.ReadAll(failures)
			for _, words := range []string{"error forwarding port 4711 to pod " + p.id, "failed to connect to localhost:4711 inside namespace",
				"dial tcp4 127.0.0.1:4711: connect: connection refused"} {
				if !strings.Contains(string(text), words) {
					t.Errorf("%q is not in %q", words, text)
				}
			}
			rest, _ := io.ReadAll(data)
			equal(t, len(rest), 0, "bytes of data")
		}
		headers := http.Header{}
		headers.Set("port", "0")
		headers.Set("streamType", "error")
		if _, err := connection.CreateStream(headers); err == nil && !isReference() {
			t.Error("a stream for port 0 was made")
		}
	})
}

func TestPortForwardInTheNodesNetwork(t *testing.T) {
	d := startDaemon(t)
	p := newPod(d, func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = ""
		c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	})
	_, port, err := net.SplitHostPort(registryAddress)
	must(t, err)
	eachTransport(t, func(t *testing.T, transport string) {
		ports := forward(t, p, transport, ":"+port)
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/v2/test/busybox/tags/list", ports[0].Local))
		must(t, err)
		data, err := io.ReadAll(answer.Body)
		must(t, err)
		answer.Body.Close()
		if !bytes.Contains(data, []byte("test/busybox")) {
			t.Errorf("the node's loopback is not reached: %q", data)
		}
	})
}

// writeCertificate makes a certificate for 127.0.0.1 that is its own authority.
func writeCertificate(t *testing.T, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "moat"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	encoded, err := x509.MarshalECPrivateKey(private)
	must(t, err)
	must(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), 0o600))
}
