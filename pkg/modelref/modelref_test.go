package modelref_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
)

var digest = strings.Repeat("0123abcd", 8)

func TestParse(t *testing.T) {
	for s, want := range map[string]modelref.Ref{
		"model.gguf":                                    {Scheme: modelref.Path, Path: "model.gguf"},
		"/srv/hf:models/a":                              {Scheme: modelref.Path, Path: "/srv/hf:models/a"},
		"./hf:odd":                                      {Scheme: modelref.Path, Path: "./hf:odd"},
		"hf:Qwen/Qwen3-8B-GGUF":                         {Scheme: modelref.Hub, Owner: "Qwen", Repo: "Qwen3-8B-GGUF"},
		"hf:a/b:q4_k_m":                                 {Scheme: modelref.Hub, Owner: "a", Repo: "b", Quant: "Q4_K_M"},
		"hf:a/b:UD-Q4_K_XL@v1.0":                        {Scheme: modelref.Hub, Owner: "a", Repo: "b", Quant: "UD-Q4_K_XL", Revision: "v1.0"},
		"hf:a/b@refs/pr/3":                              {Scheme: modelref.Hub, Owner: "a", Repo: "b", Revision: "refs/pr/3"},
		"hf:a/b/BF16/m.gguf@main":                       {Scheme: modelref.Hub, Owner: "a", Repo: "b", File: "BF16/m.gguf", Revision: "main"},
		"oci:r.test/a/b":                                {Scheme: modelref.OCI, Registry: "r.test", Name: "a/b", Tag: "latest"},
		"oci:localhost/a:1.0-q4":                        {Scheme: modelref.OCI, Registry: "localhost", Name: "a", Tag: "1.0-q4"},
		"oci:h:5000/a@sha256:" + digest:                 {Scheme: modelref.OCI, Registry: "h:5000", Name: "a", Tag: "sha256:" + digest},
		"oci:h:5000/a/b:1.0@sha256:" + digest:           {Scheme: modelref.OCI, Registry: "h:5000", Name: "a/b", Tag: "sha256:" + digest},
		"https://h/m.gguf":                              {Scheme: modelref.URL, URL: "https://h/m.gguf"},
		"https://h:8443/a/m?x=1":                        {Scheme: modelref.URL, URL: "https://h:8443/a/m", Query: "x=1"},
		"https://h/m?#sha256=" + digest:                 {Scheme: modelref.URL, URL: "https://h/m", SHA256: digest},
		"http://127.0.0.1:1/m":                          {Scheme: modelref.URL, URL: "http://127.0.0.1:1/m"},
		"http://h/m#sha256=" + digest:                   {Scheme: modelref.URL, URL: "http://h/m", SHA256: digest},
		"https://h/m#sha256=" + strings.ToUpper(digest): {Scheme: modelref.URL, URL: "https://h/m", SHA256: digest},
	} {
		got, err := modelref.Parse(s)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", s, err, d)
		}
		if got.Remote() != (want.Scheme != modelref.Path) {
			t.Errorf("%s: remote %v", s, got.Remote())
		}
	}
}

func TestParseRejects(t *testing.T) {
	for s, remedy := range map[string]string{
		"": "empty", "hf:": "hf:OWNER/REPO", "hf:a": "hf:OWNER/REPO", "hf:a/": "hf:OWNER/REPO", "hf:/b": "hf:OWNER/REPO",
		"hf:../b": "hf:OWNER/REPO", "hf:a/..": "hf:OWNER/REPO", "hf:a/b?c": "hf:OWNER/REPO", "hf:a/b#c": "hf:OWNER/REPO", "hf:a/b%2f": "hf:OWNER/REPO",
		"hf:a/b:": "quantisation", "hf:a/b:q/4": "quantisation", "hf:a/b@": "revision", "hf:a/b@../x": "revision", "hf:a/b@x y": "revision",
		"hf:a/b/../c.gguf": "path of a .gguf", "hf:a/b/c.bin": "path of a .gguf", "hf:a/b//c.gguf": "path of a .gguf", "hf:a/b/c.gguf:Q4_0": "not both",
		"oci:": "oci:REGISTRY", "oci:r.test": "oci:REGISTRY", "oci:a/b": "not the host of a registry", "oci:r.test/a:": "oci:REGISTRY", "oci:r.test:/a": "oci:REGISTRY",
		"oci:r.test:x/a": "oci:REGISTRY", "oci:r.test/../a": "oci:REGISTRY", "oci:r.test/a@sha256:12": "64 hexadecimal", "oci:r.test/a:x/y": "oci:REGISTRY",
		"oci:r.test/a:@sha256:" + digest: "oci:REGISTRY", "oci:r.test/a:x:y@sha256:" + digest: "oci:REGISTRY",
		"https://": "no host", "https:///m": "no host", "https://h": "no file", "https://h/": "no file", "https://u:p@h/m": "netrc",
		"https://h/m#sha256=12": "64 hexadecimal", "https://h/m#x": "64 hexadecimal", "http://h/m.gguf": "https://", "http://[::1": "parsed",
		"hf:a/" + strings.Repeat("b", 300): "hf:OWNER/REPO", "https://h/" + strings.Repeat("a", 3000): "more than",
	} {
		ref, err := modelref.Parse(s)
		if !errors.Is(err, modelref.ErrInvalid) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: %+v, %v; want an error with %q", s, ref, err, remedy)
		}
	}
}

// The query of an address and a login in it are in no name and in no message.
func TestSecretsAreNotShown(t *testing.T) {
	const secret = "s3cr3t"
	for _, s := range []string{
		"https://h/m.gguf?X-Amz-Signature=" + secret, "https://h/m.gguf?sig=" + secret + "&x=a@b#sha256=" + digest,
		"https://h/m?sig=" + secret + "#sha256=12", "http://h/m?sig=" + secret, "https://h/?sig=" + secret, "https://[::1/m?sig=" + secret,
		"https://u:" + secret + "@h/m", "https://u:" + secret + "@h/%zz", "https://u:" + secret + "?x@h", "https://h/m?sig=" + secret + strings.Repeat("a", 3000),
	} {
		ref, err := modelref.Parse(s)
		shown := fmt.Sprintf("%v %+v %v", ref, ref, err)
		if raw, jsonErr := json.Marshal(ref); jsonErr != nil || strings.Contains(shown+string(raw), secret) {
			t.Errorf("%s: %s %s %v", s, shown, raw, jsonErr)
		}
		if err == nil && (!strings.Contains(ref.Address(), secret) || strings.Contains(ref.String(), "?")) {
			t.Errorf("%s: downloaded from %s, named %s", s, ref.Address(), ref)
		}
	}
}

func TestValidFile(t *testing.T) {
	for s, want := range map[string]bool{
		"m.gguf": true, "a/b/m.gguf": true, ".cache/m": true, "": false, "/m": false, "../m": false, "a/../m": false, "a/./m": false, "a//m": false,
		"a\\b": false, "a b": false, "a\x00": false, "-m": false, "a/": false,
	} {
		if modelref.ValidFile(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// What Parse accepts has a String that Parse reads back, and names no file above
// its repository.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "m.gguf", "hf:a/b:Q4_K_M@main", "hf:a/b/c/d.gguf@x/y", "https://h/m?q=%20#sha256=" + digest, "http://localhost/m", "hf:a/..", "https://h/%zz", "https://h/a b", "oci:h:1/a/b:c", "oci:h.x/a@sha256:" + digest} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := modelref.Parse(s)
		if err != nil {
			if !errors.Is(err, modelref.ErrInvalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		ref.Query = "" // which String leaves out
		again, err := modelref.Parse(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q becomes %q: %+v, %v; want %+v", s, ref.String(), again, err, ref)
		}
		if ref.Scheme == modelref.Hub {
			for _, part := range []string{ref.Owner, ref.Repo, "x/" + ref.File + "x", "x/" + ref.Revision + "x"} {
				if strings.Contains("/"+part+"/", "/../") || strings.ContainsAny(part, "?#%\\ \x00") {
					t.Fatalf("%q: unsafe part %q", s, part)
				}
			}
		}
	})
}
