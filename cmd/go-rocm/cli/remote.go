package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// remote is a running service that a command talks to.
type remote struct{ address, keyFile string }

func (r *remote) register(fs *pflag.FlagSet) {
	fs.StringVar(&r.address, "address", "", "address of the service: http://HOST:PORT, https://HOST:PORT or unix:PATH (default: listen in "+defaultConfig+", else http://127.0.0.1:8080)")
	fs.StringVar(&r.keyFile, "api-key-file", "", "file with the API key for the service (default: $"+gateway.EnvAPIKey+")")
}

func psCommand() *cobra.Command {
	var r remote
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "list the models of a running service and their states",
		Long: `Lists the models of a running service: whether they are loaded, how many requests
use or wait for them, and whether they fit this machine. The column NOTE has the
cause where a model failed, and the reason where it does not fit.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := r.models(cmd.Context())
			if err != nil {
				return fmt.Errorf("ps: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printRemote(stdout(cmd), list, time.Now())
		},
	}
	r.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func loadCommand() *cobra.Command {
	return modelCommand("load", "load a model of a running service",
		`Loads a model of a running service before the first request asks for it, and waits
until it can be used. Idle models are unloaded if their memory is needed.`)
}

func unloadCommand() *cobra.Command {
	return modelCommand("unload", "unload a model of a running service",
		`Unloads a model of a running service as soon as no request uses it, and waits until
its memory is free. The next request for the model loads it again. A pinned model
stays.`)
}

func modelCommand(verb, short, long string) *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := r.call(cmd.Context(), http.MethodPost, "/models/"+verb, map[string]any{"model": args[0], "wait": true})
			if err != nil {
				return fmt.Errorf("%s: %w", verb, err)
			}
			_, err = fmt.Fprintf(stdout(cmd), "%s: %sed\n", args[0], verb)
			return err
		},
	}
	r.register(cmd.Flags())
	return cmd
}

// remoteModel is a model in the service's list.
type remoteModel struct {
	ID      string   `json:"id"`
	Aliases []string `json:"aliases,omitempty"`
	State   string   `json:"state"`
	File    string   `json:"file,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Context int      `json:"context,omitempty"`
	Fits    bool     `json:"fits"`
	Why     []string `json:"why,omitempty"`
	Cause   string   `json:"cause,omitempty"`
	Running int      `json:"running"`
	Waiting int      `json:"waiting"`
	LastUse int64    `json:"last_use,omitempty"`
	Pinned  bool     `json:"pinned"`
}

// models returns the models of the service.
func (r *remote) models(ctx context.Context) ([]remoteModel, error) {
	var list struct {
		Data []remoteModel `json:"data"`
	}
	raw, err := r.call(ctx, http.MethodGet, "/models", nil)
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	return list.Data, err
}

func printRemote(out io.Writer, list []remoteModel, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tSTATE\tSIZE\tRUNNING\tWAITING\tLAST USE\tNOTE")
	for _, m := range list {
		size, used, note := "", "", m.Cause
		if m.Size > 0 {
			size = formatSize(m.Size)
		}
		if m.LastUse > 0 {
			used = now.Sub(time.Unix(m.LastUse, 0)).Round(time.Second).String() + " ago"
		}
		switch {
		case note != "":
		case !m.Fits && len(m.Why) > 0:
			note = m.Why[0]
		case m.Pinned:
			note = "pinned"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", printable(m.ID), cmp.Or(printable(m.State), "loaded"), size, m.Running, m.Waiting, used, printable(note))
	}
	return w.Flush()
}

// maxRemoteAnswer limits an answer of the service, in bytes.
const maxRemoteAnswer = 16 << 20

// call sends a request to the service and returns the body of its answer. Its error
// is the service's message for a status other than 200.
func (r *remote) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	answer, err := r.open(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Close() }()
	return io.ReadAll(io.LimitReader(answer, maxRemoteAnswer))
}

// remoteAnswer is the body of an answer, whose connection ends with it.
type remoteAnswer struct {
	io.ReadCloser

	client *http.Client
}

// Close implements io.Closer.
func (a *remoteAnswer) Close() error {
	defer a.client.CloseIdleConnections()
	return a.ReadCloser.Close()
}

// open is call for an answer that is read as it arrives.
func (r *remote) open(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	client, base := r.client()
	req, err := r.request(ctx, method, base+path, body)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, fmt.Errorf("%w; is the service running? Set --address if it listens elsewhere", errors.Unwrap(err))
	}
	answer := &remoteAnswer{res.Body, client}
	if res.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer func() { _ = answer.Close() }()
	var failure struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	raw, err := io.ReadAll(io.LimitReader(answer, maxRemoteAnswer))
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(raw, &failure) != nil || failure.Error.Message == "" {
		failure.Error.Message = res.Status
	}
	if res.StatusCode == http.StatusUnauthorized {
		failure.Error.Message += "; name a file with the key by --api-key-file"
	}
	return nil, errors.New(failure.Error.Message)
}

// request returns a request with the key of the service; body is sent as JSON, nil:
// none.
func (r *remote) request(ctx context.Context, method, url string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return nil, fmt.Errorf("%w: --address: %w", errUsage, err)
	}
	req.Header.Set("Content-Type", "application/json")
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return req, nil
}

// client returns a client for the service and the URL that paths are appended to.
func (r *remote) client() (*http.Client, string) {
	address := r.address
	if address == "" {
		address = configuredAddress()
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return &http.Client{Transport: &http.Transport{DialContext: dial}}, "http://localhost"
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	return &http.Client{Transport: &http.Transport{}}, strings.TrimSuffix(address, "/")
}

// configuredAddress returns the address in the service's configuration, if that can
// be read.
func configuredAddress() string {
	cmd, f := newServe()
	f.config = defaultConfig
	if c, err := readConfig(f.config); err == nil {
		_, _ = applyConfig(cmd.Flags(), c, configKeys(cmd.Flags()), nil) // mistakes are the service's matter
	}
	if f.tlsCert != "" && !strings.HasPrefix(f.listen, "unix:") {
		return "https://" + f.listen
	}
	return f.listen
}

// maxClientKey limits the file of a client's key, in bytes.
const maxClientKey = 64 << 10

func (r *remote) key() (string, error) {
	if r.keyFile == "" {
		return strings.TrimSpace(os.Getenv(gateway.EnvAPIKey)), nil
	}
	raw, err := regfile.ReadText(r.keyFile, maxClientKey)
	if err != nil {
		return "", fmt.Errorf("api key: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line, nil
		}
	}
	return "", fmt.Errorf("api key: %s has no key", r.keyFile)
}
