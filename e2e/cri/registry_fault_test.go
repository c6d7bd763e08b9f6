package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// proxyRegistry stands before the good registry and misbehaves as `serve` says; `pass` is the good one.
type proxyRegistry struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // "PATH RANGE"
}

type passFunc func(w http.ResponseWriter, r *http.Request)

func newProxy(t *testing.T, serve func(w http.ResponseWriter, r *http.Request, pass passFunc)) *proxyRegistry {
	t.Helper()
	target, err := url.Parse("http://" + registryAddress)
	must(t, err)
	good := httputil.NewSingleHostReverseProxy(target)
	p := &proxyRegistry{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r.URL.Path+" "+r.Header.Get("Range"))
		p.mu.Unlock()
		defer func() { _ = recover() }() // http.ErrAbortHandler of a reply that was cut
		serve(w, r, good.ServeHTTP)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxyRegistry) host() string { return strings.TrimPrefix(p.URL, "http://") }

func (p *proxyRegistry) ranges() (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range p.requests {
		if _, asked, _ := strings.Cut(request, " "); asked != "" {
			found = append(found, asked)
		}
	}
	return found
}

// layerDigest is the biggest blob of the good registry's test/busybox:1.
func layerDigest(t *testing.T) string {
	t.Helper()
	return "sha256:" + filepath.Base(filepath.Dir(lastLayer(t, "test/busybox")))
}

// half writes the first half of a blob that the registry keeps and returns what was written.
func half(w http.ResponseWriter, t *testing.T) int {
	data, err := os.ReadFile(lastLayer(t, "test/busybox"))
	if err != nil {
		return 0
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	w.Write(data[:len(data)/2])
	w.(http.Flusher).Flush()
	return len(data) / 2
}

func entries(t *testing.T, d *Daemon, name string) int {
	t.Helper()
	found, err := os.ReadDir(filepath.Join(d.dir, "lib/images", name))
	must(t, err)
	return len(found)
}

// nothingLeft: no image, no layer, nothing under construction.
func nothingLeft(t *testing.T, d *Daemon) {
	t.Helper()
	equal(t, imageCount(d), 0, "images")
	for _, name := range []string{"tmp", "layers", "roots"} {
		waitFor(t, 10*time.Second, func() bool { return entries(t, d, name) == 0 }, func() string { return "no entries of " + name })
	}
}

func TestRegistryFaults(t *testing.T) {
	moatOnly(t, "its errors have other words")
	layer := layerDigest(t)
	isLayer := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, layer) }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	first := func() func() bool {
		var once sync.Once
		return func() (is bool) { once.Do(func() { is = true }); return is }
	}
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	d := startDaemonIn(t, dir, "--pull-stall-timeout", "1")
	cases := map[string]struct {
		words []string // of the error; none: the pull succeeds
		serve func(w http.ResponseWriter, r *http.Request, pass passFunc)
	}{}
	add := func(name string, serve func(w http.ResponseWriter, r *http.Request, pass passFunc), words ...string) {
		cases[name] = struct {
			words []string
			serve func(w http.ResponseWriter, r *http.Request, pass passFunc)
		}{words, serve}
	}
	once500, once429, onceCut, onceStall, onceDeaf := first(), first(), first(), first(), first()
	add("500 once", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) && once500() {
			w.WriteHeader(500)
			return
		}
		pass(w, r)
	})
	add("429 with Retry-After", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isManifest(r) && once429() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		pass(w, r)
	})
	add("503 for ever", func(w http.ResponseWriter, r *http.Request, pass passFunc) { w.WriteHeader(503) }, "status 503", "5 tries")
	add("a Retry-After of a day", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(503)
	}, "asks to wait 86400 s")
	add("cut in the middle", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) && onceCut() {
			half(w, t)
			panic(http.ErrAbortHandler)
		}
		pass(w, r)
	})
	add("cut, and no ranges", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) && onceDeaf() {
			half(w, t)
			panic(http.ErrAbortHandler)
		}
		r.Header.Del("Range")
		pass(w, r)
	})
	add("stalls once", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) && onceStall() {
			half(w, t)
			<-r.Context().Done()
			return
		}
		pass(w, r)
	})
	add("stalls for ever", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) {
			<-r.Context().Done()
			return
		}
		pass(w, r)
	}, "stalled", layer)
	add("an endless manifest", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		w.WriteHeader(200)
		for chunk := make([]byte, 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "a manifest of more than")
	add("an endless layer", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if !isLayer(r) {
			pass(w, r)
			return
		}
		w.WriteHeader(200)
		for chunk := make([]byte, 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "longer than", layer)
	add("an endless error", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		w.WriteHeader(404)
		for chunk := make([]byte, 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, "status 404")
	add("another length", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if isLayer(r) {
			w.Write([]byte("short"))
			return
		}
		pass(w, r)
	}, "5 bytes instead of", layer)
	add("another range", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if !isLayer(r) {
			pass(w, r)
		} else if r.Header.Get("Range") == "" {
			half(w, t)
			panic(http.ErrAbortHandler)
		} else {
			w.Header().Set("Content-Range", "bytes 0-4/5")
			w.WriteHeader(206)
			w.Write([]byte("wrong"))
		}
	}, "asked for the bytes from", layer)
	add("a header bomb", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		for i := 0; i < 2000; i++ {
			w.Header().Set(fmt.Sprintf("X-Bomb-%d", i), strings.Repeat("x", 100))
		}
		pass(w, r)
	}, "headers of more than")
	add("a redirect to itself", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		http.Redirect(w, r, r.URL.Path+"x", http.StatusTemporaryRedirect)
	}, "too many redirects")
	add("a redirect to a file", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(307)
	}, "neither http nor https")
	add("tokens that never do", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if r.URL.Path == "/token" {
			w.Write([]byte(`{"token":"again"}`))
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
		w.WriteHeader(401)
	}, "status 401")
	add("a token server that leads round", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if r.URL.Path == "/token" {
			http.Redirect(w, r, "/token", http.StatusFound)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
		w.WriteHeader(401)
	}, "token", "too many redirects")
	add("a token without end", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if r.URL.Path == "/token" {
			w.WriteHeader(200)
			for chunk := make([]byte, 1<<16); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
		w.WriteHeader(401)
	}, "a token of more than")
	add("an unknown layer type", func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if !isManifest(r) {
			pass(w, r)
			return
		}
		blob := `"digest":"sha256:` + strings.Repeat("0", 64) + `","size":1}`
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Write([]byte(`{"schemaVersion":2,"config":{` + blob + `,"layers":[{"mediaType":"application/x-own",` + blob + `]}`))
	}, "application/x-own")

	try := func(name string) (message string) {
		c := cases[name]
		p := newProxy(t, c.serve)
		_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: p.host() + "/test/busybox:1"}, nil, nil)
		if len(c.words) == 0 && err != nil {
			return fmt.Sprintf("%s: was not pulled: %v", name, err)
		}
		if len(c.words) > 0 && err == nil {
			return name + ": was pulled"
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				return fmt.Sprintf("%s: the error does not say %q: %v", name, word, err)
			}
		}
		if name == "cut in the middle" && len(p.ranges()) == 0 {
			return name + ": it was begun anew"
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.requests) > 40 {
			return fmt.Sprintf("%s: %d requests", name, len(p.requests))
		}
		return ""
	}
	clean := func() {
		found, err := d.images.ListImages(ctx, nil)
		must(t, err)
		for _, image := range found {
			must(t, d.images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: image.Id}))
		}
		nothingLeft(t, d)
	}
	// One after the other those of the layer: pulls of the same layer share it.
	for _, name := range []string{"500 once", "cut in the middle", "cut, and no ranges", "stalls once", "stalls for ever",
		"an endless layer", "another length", "another range"} {
		if message := try(name); message != "" {
			t.Error(message)
		}
		clean()
		delete(cases, name)
	}
	// The others at once: none of them keeps another from its end.
	messages := make(chan string)
	for name := range cases {
		go func() { messages <- try(name) }()
	}
	for range cases {
		if message := <-messages; message != "" {
			t.Error(message)
		}
	}
	clean()
	_, out := newPod(d).run("echo fine")
	equal(t, out, "fine\n", "a good registry afterwards")
}

func TestACancelledPullStops(t *testing.T) {
	d := startDaemon(t)
	layer := layerDigest(t)
	began, gone := make(chan bool, 1), make(chan bool, 1)
	p := newProxy(t, func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if !strings.HasSuffix(r.URL.Path, layer) {
			pass(w, r)
			return
		}
		half(w, t)
		began <- true
		<-r.Context().Done()
		gone <- true
	})
	pulling, cancel := context.WithCancel(ctx)
	go func() { <-began; cancel() }()
	if _, err := d.images.PullImage(pulling, &runtimeapi.ImageSpec{Image: p.host() + "/test/busybox:1"}, nil, nil); err == nil {
		t.Fatal("was pulled")
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Fatal("the download goes on without its client")
	}
	waitFor(t, 30*time.Second, func() bool { return entries(t, d, "tmp") == 0 }, func() string { return "tmp is empty" })
	equal(t, imageCount(d), 0, "images")
}

func TestAPullGoesOnAfterAKill(t *testing.T) {
	moatOnly(t, "it asks anew")
	d := startDaemon(t)
	layer := layerDigest(t)
	began := make(chan bool, 1)
	hold := true
	p := newProxy(t, func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if !strings.HasSuffix(r.URL.Path, layer) || !hold {
			pass(w, r)
			return
		}
		half(w, t)
		began <- true
		<-r.Context().Done()
	})
	reference := p.host() + "/test/busybox:1"
	done := make(chan error, 1)
	images := d.images
	go func() {
		_, err := images.PullImage(ctx, &runtimeapi.ImageSpec{Image: reference}, nil, nil)
		done <- err
	}()
	<-began
	partial := filepath.Join(d.dir, "lib/images/partial", strings.TrimPrefix(layer, "sha256:"))
	size := func() int64 {
		info, err := os.Stat(partial)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	waitFor(t, 30*time.Second, func() bool { return size() > 0 }, func() string { return "the partial blob is there" })
	must(t, d.command.Process.Kill())
	d.command.Wait()
	if err := <-done; err == nil {
		t.Error("a killed daemon has pulled")
	}
	d.disconnect()
	hold = false
	d.start()
	kept := size()
	pull(d, reference)
	equal(t, strings.Join(p.ranges(), " "), fmt.Sprintf("bytes=%d-", kept), "the range that was asked for")
	equal(t, entries(t, d, "partial"), 0, "partial blobs afterwards")
}

func TestTokensAreRefreshedInTheMiddleOfAPull(t *testing.T) {
	d := startDaemon(t)
	var mu sync.Mutex
	tokens, uses, posts := 0, 0, 0
	var scope, login string
	p := newProxy(t, func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			r.ParseForm()
			scope, login = r.Form.Get("scope"), r.Header.Get("Authorization")
			if r.Method == "POST" {
				posts++
				if r.Form.Get("refresh_token") != "identity" || r.Form.Get("grant_type") != "refresh_token" {
					w.WriteHeader(401)
					return
				}
			} else if login != "Basic dXNlcjpwYXNz" {
				w.WriteHeader(401)
				return
			}
			tokens, uses = tokens+1, 0
			json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprint("t", tokens), "expires_in": 1})
			return
		}
		if r.Header.Get("Authorization") != fmt.Sprint("Bearer t", tokens) || uses == 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s",scope="repository:test/busybox:pull"`)
			w.WriteHeader(401)
			return
		}
		uses++
		r.Header.Del("Authorization")
		pass(w, r)
	})
	image := &runtimeapi.ImageSpec{Image: p.host() + "/test/busybox:1"}
	_, err := d.images.PullImage(ctx, image, &runtimeapi.AuthConfig{Username: "user", Password: "wrong"}, nil)
	if err == nil {
		t.Error("was pulled with a wrong password")
	}
	_, err = d.images.PullImage(ctx, image, &runtimeapi.AuthConfig{Username: "user", Password: "pass", ServerAddress: "elsewhere.example"}, nil)
	if err == nil {
		t.Error("a password for another server was of use")
	}
	_, err = d.images.PullImage(ctx, image, &runtimeapi.AuthConfig{Username: "user", Password: "pass"}, nil)
	must(t, err)
	if tokens < 3 { // manifest, configuration, layer: each token is good for one
		t.Errorf("%d tokens", tokens)
	}
	equal(t, scope, "repository:test/busybox:pull", "scope")
	must(t, d.images.RemoveImage(ctx, image))
	_, err = d.images.PullImage(ctx, image, &runtimeapi.AuthConfig{IdentityToken: "identity"}, nil)
	must(t, err)
	if posts == 0 {
		t.Error("the identity token was not exchanged")
	}
}

// hostsFile writes certs.d/HOST/hosts.toml of a daemon.
func hostsFile(t *testing.T, d *Daemon, host, text string) string {
	t.Helper()
	dir := filepath.Join(d.dir, "certs.d", host)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644))
	return dir
}

// The real registry, with TLS and passwords.
func TestTLSAndPasswords(t *testing.T) {
	moatOnly(t, "its configuration names no hosts directory")
	d := startDaemon(t)
	dir := filepath.Join(d.dir, "registry")
	must(t, os.MkdirAll(dir, 0o755))
	run := func(name string, arguments ...string) string {
		t.Helper()
		out, err := exec.Command(name, arguments...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, arguments, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=moat", "-addext", "subjectAltName=IP:127.0.0.1",
		"-keyout", dir+"/key.pem", "-out", dir+"/cert.pem")
	hash := run("python3", "-W", "ignore", "-c", `import crypt; print(crypt.crypt("pass", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))`)
	must(t, os.WriteFile(dir+"/htpasswd", []byte("user:"+hash+"\n"), 0o644))
	const address = "127.0.0.1:5443"
	must(t, os.WriteFile(dir+"/config.yml", []byte(fmt.Sprintf(`version: 0.1
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %q, tls: {certificate: %s/cert.pem, key: %s/key.pem}}
auth: {htpasswd: {realm: moat, path: %s/htpasswd}}
`, registryDir, address, dir, dir, dir)), 0o644))
	command := exec.Command(registryBin, "serve", dir+"/config.yml")
	must(t, command.Start())
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	image := &runtimeapi.ImageSpec{Image: address + "/test/busybox:1"}
	good := &runtimeapi.AuthConfig{Username: "user", Password: "pass"}
	pull := func(auth *runtimeapi.AuthConfig) error {
		_, err := d.images.PullImage(ctx, image, auth, nil)
		return err
	}
	fails := func(err error, word string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("does not fail with %q: %v", word, err)
		}
	}
	hostsFile(t, d, address, `server = "https://`+address+`"`)
	waitFor(t, 20*time.Second, func() bool { return !strings.Contains(pull(good).Error(), "cannot connect") }, func() string { return "the registry listens" })
	fails(pull(good), "not trusted")
	hostsFile(t, d, address, "server = \"https://"+address+"\"\nca = \""+dir+"/cert.pem\"\n")
	fails(pull(nil), "asks for a password")
	fails(pull(&runtimeapi.AuthConfig{Username: "user", Password: "wrong"}), "401")
	must(t, pull(good))
	must(t, d.images.RemoveImage(ctx, image))
	hostsFile(t, d, address, "server = \"https://"+address+"\"\nskip_verify = true\n")
	must(t, pull(&runtimeapi.AuthConfig{Auth: "dXNlcjpwYXNz"}))
}

// critest's way to its images: names stay, a plain registry on loopback has them.
func TestMirrors(t *testing.T) {
	moatOnly(t, "its configuration names no hosts directory")
	d := startDaemon(t)
	broken := newProxy(t, func(w http.ResponseWriter, r *http.Request, pass passFunc) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(404)
			return
		}
		pass(w, r)
	})
	hostsFile(t, d, "registry.k8s.io", fmt.Sprintf(`server = "http://127.0.0.1:9"
[host."http://127.0.0.1:9"]
  capabilities = ["pull", "resolve"]
[host.%q]
  capabilities = ["pull", "resolve"]
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, broken.URL, registryAddress))
	const name = "registry.k8s.io/test/busybox:1"
	pull(d, name)
	equal(t, imageStatus(d, name).RepoTags[0], name, "name")
	if len(broken.requests) < 2 {
		t.Errorf("the second mirror was not asked: %v", broken.requests)
	}
	_, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: "registry.k8s.io/no/such:1"}, nil, nil)
	for _, word := range []string{"127.0.0.1:9", broken.URL, registryAddress, "status 404"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not name %q: %v", word, err)
		}
	}
	hostsFile(t, d, "registry.k8s.io", "wrong = 1\n")
	if _, err := d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, nil, nil); err == nil || !strings.Contains(err.Error(), "hosts.toml: line 1") {
		t.Errorf("a wrong hosts file: %v", err)
	}
}

func TestALayerThatIsTooBig(t *testing.T) {
	moatOnly(t, "it has no such limit")
	dir, err := os.MkdirTemp(scratchDir, "d")
	must(t, err)
	d := startDaemonIn(t, dir, "--max-layer-size", "100000")
	_, err = d.images.PullImage(ctx, &runtimeapi.ImageSpec{Image: busyboxImage}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "more than the limit of 100000 bytes") {
		t.Errorf("%v", err)
	}
	nothingLeft(t, d)
}
