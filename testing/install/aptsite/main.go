// Command aptsite serves an apt repository to the machine it runs on, and
// publishes into it while it does: the tests of packaging/apt start it inside a
// machine without a network.
//
//	aptsite -root DIR [-key FILE [-ago TIME]] [-nobyhash] [-full]
//
// With -key there is no moment without a publish: one follows the other for as
// long as the program runs, and another comes between each client's reading of
// InRelease and what it asks for next, the moment at which a client is most
// easily led astray. With -nobyhash indexes are not to be had by their digests,
// as in repositories that do not know of that. With -full the server is one that
// wants a client to take what it shows, and takes no "not modified" for an answer.
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
	"forge.lthn.ai/core/go-rocm/testing/debgen"
)

// Listen is where the site is served.
const Listen = "127.0.0.1:8080"

// repository is the directory below the root that is published into.
const repository = "apt"

func main() {
	root := flag.String("root", "/srv/www", "directory to serve")
	key := flag.String("key", "", "OpenPGP key to publish with repeatedly")
	ago := flag.Duration("ago", 40*time.Minute, "how long ago the first publish is dated; each is a second later")
	noByHash := flag.Bool("nobyhash", false, "do not hand out indexes by their digests")
	full := flag.Bool("full", false, "send whole files, whatever a client says that it has of them")
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
		p.mu.Lock() // the last publish is whole
	}
	return nil
}

// publisher adds one package more with each publish.
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

// publish ends the program when it fails: then every client does, and the test
// shows why.
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
