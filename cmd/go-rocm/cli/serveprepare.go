package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/internal/sdnotify"
	"forge.lthn.ai/core/go-rocm/internal/webui"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// service is what serve has checked before it starts anything.
type service struct {
	credentials *gateway.CredentialStore
	model       *rocm.Prepared
}

// prepare checks everything that serve needs to start: the credentials, the
// settings, and the files that they name. "config check" ends here. Mistakes in a
// configuration file are configErrors with their lines.
func (f *serveFlags) prepare(ctx context.Context, model string, s rocm.Settings) (*service, error) {
	out := &service{}
	var credentialsErr, modelErr error
	out.credentials, credentialsErr = f.checkService(s.Log)
	out.model, modelErr = rocm.Prepare(ctx, model, s)
	if err := f.report(credentialsErr, modelErr, f.checkModel(model)); err != nil {
		return nil, errors.Join(err, out.close())
	}
	return out, nil
}

// checkModel checks what package rocm does not know of a model that is served.
func (f *serveFlags) checkModel(path string) error {
	errs := []error{f.checkPooling(path)}
	if f.cacheRAM < -1 {
		errs = append(errs, &keyError{"cache-ram", fmt.Errorf("%d MiB; use -1 for none", f.cacheRAM)})
	}
	if f.idleUnload < 0 || f.idleUnload > maxDuration {
		errs = append(errs, &keyError{"idle-unload", fmt.Errorf("%v; use 0s to keep the model loaded, and at most %v", f.idleUnload, maxDuration)})
	}
	return errors.Join(errs...)
}

// report returns the mistakes that configure has found, and others, by line.
func (f *serveFlags) report(errs ...error) error {
	return byLine(append(slices.Clone(f.mistakes), f.locate(errors.Join(errs...))))
}

// close releases the resources of a service that was not started.
func (s *service) close() error {
	if s.model == nil {
		return nil
	}
	return s.model.Close()
}

// keyError is an error about a flag, which is also a key of the configuration file.
type keyError struct {
	key string
	err error
}

// Error names the flag.
func (e *keyError) Error() string { return fmt.Sprintf("--%s: %v", e.key, e.err) }

// Unwrap returns the cause.
func (e *keyError) Unwrap() error { return e.err }

// optionKeys maps the settings of package rocm to the keys of a configuration file.
func optionKeys() map[string]string {
	return map[string]string{
		"Model": modelKey, "Bundle": "bundle", "Server": "server", "Backend": "backend", "Context": "context", "Slots": "slots", "Layers": "gpu-layers", "Adapters": "adapter",
		"Projector": "mmproj", "Draft": "draft", "Overcommit": "overcommit", "Alias": "alias",
		"Cache.KeyType": "cache-type-k", "Cache.ValueType": "cache-type-v", "Cache.HostLimit": "cache-ram",
		"Devices.ID": "device", "Devices.Count": "gpus", "Devices.Required": "require-gpu", "Devices.Override": "override",
		"ChatTemplateFile": "chat-template-file", "Embeddings": "embeddings", "Reranking": "reranking", "Pooling": "pooling",
		"SlotDir": "slot-dir", "Args": "server-arg", "Timeouts.Start": "start-timeout", "Timeouts.Stall": "stall-timeout",
	}
}

// locate returns err with the file and the lines of the keys that it is about, where
// they are those of a configuration file.
func (f *serveFlags) locate(err error) error {
	if f.file == nil {
		return err
	}
	found, errs := splitKeyErrors(err)
	for _, e := range found {
		text := e.err.Error()
		for _, prefix := range []error{errUsage, rocm.ErrInvalidOption} {
			text = strings.TrimPrefix(text, prefix.Error()+": ")
		}
		switch {
		case e.key == modelKey && f.noModel:
		case slices.Contains(f.onCommandLine, e.key):
			errs = append(errs, e)
		default:
			c := f.file.errorf(e.key, "%s: %s", e.key, text)
			c.passing = errors.Is(e, plan.ErrNoGPU)
			errs = append(errs, c)
		}
	}
	return byLine(errs)
}

// splitKeyErrors returns the errors in err that are about one key, and the joined ones
// that are not.
func splitKeyErrors(err error) (found []*keyError, rest []error) {
	for _, each := range joined(err) {
		if keyed := keyErrors(each); len(keyed) > 0 {
			found = append(found, keyed...)
		} else {
			rest = append(rest, each)
		}
	}
	return found, rest
}

// keyErrors returns the errors in err that are about one key.
func keyErrors(err error) []*keyError {
	switch e := err.(type) { //nolint:errorlint // every error of the tree is visited
	case *keyError:
		return []*keyError{e}
	case *plan.OptionError:
		if key := optionKeys()[e.Option]; key != "" {
			return []*keyError{{key, e.Err}}
		}
	case *gateway.CredentialError:
		if e.Flag != "" {
			return []*keyError{{e.Flag, e.Err}}
		}
	case interface{ Unwrap() []error }:
		var out []*keyError
		for _, err := range e.Unwrap() {
			out = append(out, keyErrors(err)...)
		}
		return out
	case interface{ Unwrap() error }:
		return keyErrors(e.Unwrap())
	}
	return nil
}

func (f *serveFlags) credentialFiles() gateway.CredentialFiles {
	return gateway.CredentialFiles{KeyFile: f.keyFile, Key: os.Getenv(gateway.EnvAPIKey), TLSCert: f.tlsCert, TLSKey: f.tlsKey, Named: f.named}
}

// maxDuration limits durations: sums of them must not overflow.
const maxDuration = 365 * 24 * time.Hour

// maxMemory limits memory, in MiB.
const maxMemory = math.MaxInt32

// checkService reads the API keys and the certificate, and checks that the address may
// be listened on with them. It checks the other settings of the service, too.
func (f *serveFlags) checkService(log *slog.Logger) (*gateway.CredentialStore, error) {
	var errs []error
	invalid := func(key, format string, args ...any) {
		errs = append(errs, &keyError{key, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))})
	}
	errs = append(errs, f.checkObserve())
	local, err := gateway.IsLocal(f.listen)
	if err != nil {
		invalid("listen", "%w", err)
		local = true // no more about it
	} else if err := gateway.CheckSocket(f.listen); err != nil {
		errs = append(errs, &keyError{"listen", err})
	}
	if f.drain < 0 || f.drain > maxDuration {
		invalid("drain", "%v; use 0s to wait for no request, and at most %v", f.drain, maxDuration)
	}
	if f.minResidency > maxDuration {
		invalid("min-residency", "%v; use at most %v", f.minResidency, maxDuration)
	}
	for key, amount := range map[string]int{"yield-memory": f.yieldMemory, "host-memory": f.hostMemory} {
		if amount < 0 || amount > maxMemory {
			invalid(key, "%d MiB; use 0 for the default, and at most %d", amount, maxMemory)
		}
	}
	if f.usageFile != "" {
		if err := regfile.CheckReplace(f.usageFile); err != nil {
			invalid("usage-file", "%w; name a file in a directory that can be written to", err)
		}
	}
	files := f.credentialFiles()
	known := func(key string) bool { return !slices.Contains(f.mistaken, key) }
	switch {
	case f.tlsCert == "" && f.tlsKey != "":
		if known("tls-cert") {
			invalid("tls-key", "--tls-cert and --tls-key must be set together")
		}
		files.TLSKey = ""
	case f.tlsCert != "" && f.tlsKey == "":
		if known("tls-key") {
			invalid("tls-cert", "--tls-cert and --tls-key must be set together")
		}
		files.TLSCert = ""
	}
	credentials, err := gateway.LoadCredentials(files, log)
	errs = append(errs, err)
	hasKeys := f.keyFile != "" || strings.TrimSpace(files.Key) != "" || len(f.named) > 0 || !known("api-key-file") || !known(keysTable)
	if err := gateway.CheckOrigins(f.origins); err != nil {
		invalid("cors-origin", "%w", err)
	}
	if len(f.origins) > 0 && !hasKeys {
		invalid("cors-origin", "it lets web pages of other machines in, so an API key is required: set --api-key-file or $%s", gateway.EnvAPIKey)
	}
	if !local && !hasKeys {
		invalid("listen", "other machines can reach %s, so an API key is required: set --api-key-file or $%s", f.listen, gateway.EnvAPIKey)
	}
	return credentials, errors.Join(errs...)
}

// pullTimeout is how long systemd waits for the next sign of progress of a download:
// longer than the download itself waits for a silent server, with its repetitions.
const pullTimeout = 10 * time.Minute

// pullMissing pulls the models that are to be served and that the store does not have,
// if --pull is set. model is the one to serve; it is empty if there are several. What is
// wrong without the models is reported before anything is downloaded.
func (f *serveFlags) pullMissing(ctx context.Context, cmd *cobra.Command, model string, settings rocm.Settings, n *sdnotify.Notifier) error {
	if !f.pull {
		return nil
	}
	_, serviceErr := f.checkService(settings.Log)
	if err := f.report(serviceErr, settings.Validate(), machine.CheckCompanions(nil, settings.Options)); err != nil {
		return err
	}
	names := []string{model}
	if f.several && f.config != "" {
		var err error
		if names, err = configReferences(f.config); err != nil {
			return err
		}
	}
	p := &pullFlags{bundle: f.bundle, context: f.context}
	for _, name := range names {
		ref, err := modelref.Parse(name)
		if err != nil || !ref.Remote() || slices.Contains(p.refs, ref) {
			continue // loading the model says what is wrong with its name
		}
		switch _, _, err := modelstore.Resolve(name); {
		case errors.Is(err, modelstore.ErrNotFound):
			p.refs = append(p.refs, ref)
		case err != nil:
			return err
		}
	}
	if len(p.refs) == 0 {
		return nil
	}
	s, err := modelstore.Open("")
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	p.started = func(name string) { n.Progress("pulling "+name, pullTimeout) }
	p.progress = func(file string, done, total int64) {
		n.Progress(fmt.Sprintf("pulling %s, %.0f %%", truncate(file), 100*float64(done)/float64(max(total, 1))), pullTimeout)
	}
	if err := p.pull(ctx, cmd, s); err != nil {
		return fmt.Errorf("serve --pull: %w", err)
	}
	return nil
}

// page returns the web page of the service: nil with --no-page, and a page that says
// so in a program that was built without one.
func (f *serveFlags) page(log *slog.Logger) gateway.Page {
	if f.noPage {
		return nil
	}
	p, err := webui.Embedded()
	switch {
	case errors.Is(err, webui.ErrNotEmbedded):
		log.Debug("there is no web page", "cause", err.Error())
		return gateway.MissingPage(err)
	case err != nil:
		log.Error("there is no web page", "cause", err.Error())
		return gateway.MissingPage(err)
	}
	return p
}

// printPage prints the addresses of the web page and of the page /status, where a
// browser can open them.
func printPage(cmd *cobra.Command, page gateway.Page, url string) {
	if page == nil || strings.HasPrefix(url, "unix:") {
		return
	}
	if _, embedded := page.(*webui.Page); embedded {
		_, _ = fmt.Fprintf(stdout(cmd), "web page: %s/\n", browserURL(url))
	}
	_, _ = fmt.Fprintf(stdout(cmd), "status: %s/status\n", browserURL(url))
}

// browserURL replaces the address of all interfaces, which a browser cannot open, by
// that of this machine.
func browserURL(url string) string {
	scheme, address, _ := strings.Cut(url, "://")
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return url
	}
	return scheme + "://" + net.JoinHostPort("localhost", port)
}
