// Command aptsite serves an apt repository to its own machine and publishes into it at
// the same time. The tests of packaging/apt start it in a machine without a network.
//
//	aptsite -root DIR [-key FILE [-ago TIME]] [-nobyhash] [-full]
//
// With -key, it publishes continuously, and additionally between a client's request for
// InRelease and its next request, when a client is most likely to fail. With -nobyhash,
// indexes are not available under their digests, as in repositories without this feature.
// With -full, the server sends complete answers and never "not modified".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/debgen"
)

// Listen is the site's address.
const Listen = "127.0.0.1:8080"

// repository is the directory below the root into which aptsite publishes.
const repository = "apt"

func main() {
	root := flag.String("root", "/srv/www", "directory to serve")
	key := flag.String("key", "", "OpenPGP key to publish with repeatedly")
	ago := flag.Duration("ago", 40*time.Minute, "age of the first publication; each further one is a second newer")
	noByHash := flag.Bool("nobyhash", false, "do not serve indexes under their digests")
	full := flag.Bool("full", false, "send complete files, whatever version a client has")
	flag.Parse()
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, *root, *key, *ago, *noByHash, *full)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, root, key string, ago time.Duration, noByHash, full bool) error {
	files := http.FileServer(http.Dir(root))
	var p *publisher
	if key != "" {
		var err error
		if p, err = newPublisher(root, key, ago); err != nil {
			return err
		}
		go func() {
			for {
				p.publish(context.WithoutCancel(ctx))
			}
		}()
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		log.Print(r.Method, " ", r.URL.Path)
		if noByHash && strings.Contains(r.URL.Path, "/by-hash/") {
			http.NotFound(w, r)
			return
		}
		if full {
			r.Header.Del("If-Modified-Since")
			r.Header.Del("Range")
		}
		files.ServeHTTP(w, r)
		if p != nil && strings.HasSuffix(r.URL.Path, "/InRelease") {
			if err := http.NewResponseController(w).Flush(); err != nil {
				log.Print(err)
			}
			p.publish(context.WithoutCancel(ctx)) // before the connection's next request is read
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", Listen)
	if err != nil {
		return err
	}
	log.Print("LISTENING")
	server := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if p != nil {
		p.mu.Lock() // waits for the end of the last publication
	}
	return nil
}

// publisher adds one package with each publication.
type publisher struct {
	root string
	keys *apt.Keys
	mu   sync.Mutex
	n    int
	date time.Time
}

func newPublisher(root, key string, ago time.Duration) (*publisher, error) {
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	keys, err := apt.ParseKeys(text, nil)
	if err != nil {
		return nil, err
	}
	return &publisher{root: root, keys: keys, date: time.Now().Add(-ago)}, nil
}

// publish exits the program on failure. Then every client fails, and the test shows the
// reason.
func (p *publisher) publish(ctx context.Context) {
	if err := p.add(ctx); err != nil {
		log.Fatalf("publish: %v", err)
	}
}

func (p *publisher) add(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.date = p.date.Add(time.Second)
	name := fmt.Sprintf("other%d", p.n%50)
	deb, err := debgen.Package{
		Control: debgen.Control(name, fmt.Sprintf("%d-1", p.date.Unix())), Compression: ".zst", Files: map[string]string{"usr/share/" + name: name},
	}.Write(os.TempDir(), name+".deb")
	if err != nil {
		return err
	}
	err = apt.Publish(ctx, apt.Options{
		Dir: filepath.Join(p.root, repository), URL: "http://" + Listen + "/" + repository, Suite: "stable",
		Debs: []string{deb}, Date: p.date, Keys: p.keys, Validity: 24 * time.Hour,
	})
	if err := errors.Join(err, os.Remove(deb)); err != nil {
		return err
	}
	log.Printf("PUBLISHED %d", p.n)
	return nil
}
